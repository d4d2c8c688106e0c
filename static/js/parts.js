// The parts of a page that are words and rows: each paints what the store knows into what the server rendered.

import { field, part, setAttribute, setField, setText, setTime, setTone, setWord, show, syncList } from "./dom.js";
import { clock, countdown, integer, loss, percent, seconds } from "./format.js";
import { inOrder, isMeasuredOnDevices, medianSeconds, valueOf } from "./series.js";

const TABLE_ROUNDS = 100;
const OPEN_PHASES = new Set(["assigned", "training", "uploading"]);
const asTime = (element) => setText(element, clock(element.getAttribute("datetime"), element.dataset.clock));

/** Write every time that the server rendered in the viewer's zone. */
export function localizeTimes(root = document) {
  for (const element of root.querySelectorAll("time[data-clock]")) {
    const iso = element.getAttribute("datetime");
    if (!iso) continue;
    element.title = iso;
    asTime(element);
  }
  setText(document.querySelector("[data-zone]"), Intl.DateTimeFormat().resolvedOptions().timeZone);
}

/** Return how a device is shown: what bars it, else that it is offline, else what it does. */
export function deviceWord(words, device) {
  if (device.state !== "active") return words.device[device.state] ?? words.device.offline;
  return device.presence === "offline" ? words.device.offline : (words.device[device.activity] ?? words.device.idle);
}

const isOnline = (device) => device.presence === "online";
const onlineOf = (store) => [...store.devices.values()].filter(isOnline).length;
const byName = (store) => [...store.devices.values()].sort((a, b) => (a.name < b.name ? -1 : 1));

export function mountHeader(store) {
  const root = part("header");
  if (!root || !store.run) return null;
  return {
    slices: ["runs"],
    paint() {
      const { run, words } = store;
      setWord(field(root, "chip"), words.run[run.state]);
      setField(root, "reason", run.reason);
      const started = field(root, "started");
      if (run.started_at && !started.querySelector("time")) {
        const moment = document.createElement("time");
        moment.dataset.clock = "date";
        started.replaceChildren("Started ", moment);
        setTime(moment, run.started_at, asTime);
      }
    },
  };
}

export function mountFigures(store) {
  const root = part("figures");
  if (!root || !store.run) return null;
  return {
    slices: ["runs", "rounds", "devices"],
    paint() {
      const rounds = inOrder(store.rounds);
      const published = rounds.filter((line) => line.version !== null);
      const newest = published.at(-1);
      const onDevices = isMeasuredOnDevices(rounds);
      for (const [name, write] of [["accuracy", percent], ["loss", loss]]) {
        setField(root, name, (newest && write(valueOf(newest, name, false))) || "–");
        setField(root, `${name}_note`, noteOf(newest, name, write, onDevices));
      }
      setField(root, "online", String(onlineOf(store)));
      setField(root, "devices", String(store.devices.size));
      setField(root, "devices_note", `${store.run.selected} in this round`);
      setField(root, "round_time", seconds(medianSeconds(rounds)) || "–");
      const best = rounds.find((line) => line.is_best);
      setField(root, "best", best ? `v${best.version}` : "–");
      setField(root, "best_note", best ? bestNote(best) : "none yet");
    },
  };
}

function noteOf(newest, name, write, onDevices) {
  if (!newest) return "nothing measured yet";
  if (!onDevices) return `version ${newest.version}, on the test split`;
  const mean = write(valueOf(newest, name, true));
  return mean ? `not evaluated here; on devices ${mean}` : "not evaluated here";
}

function bestNote(best) {
  const here = percent(valueOf(best, "accuracy", false));
  const there = percent(valueOf(best, "accuracy", true));
  if (here) return `accuracy ${here}`;
  return there ? `on devices ${there}` : "";
}

export function mountRound(store) {
  const root = part("round");
  if (!root || !store.run) return null;
  const title = document.getElementById("round-title");
  const list = root.querySelector("[data-list]");
  const template = document.getElementById("part-template");
  return {
    slices: ["runs", "progress"],
    paint() {
      const { run, words } = store;
      setText(title, run.round === null ? "No round yet" : `Round ${run.round}`);
      setWord(field(root, "chip"), words.round[run.round_state ?? "pending"]);
      setAttribute(field(root, "phases"), "data-state", run.round_state ?? "");
      setField(root, "received", `${run.updates_received} of ${run.selected}`);
      setField(root, "lost", run.updates_lost ? `${run.updates_lost} lost` : "");
      setField(root, "quorum", `quorum ${run.quorum} of ${run.cohort_size}`);
      paintBar(field(root, "bar"), run);
      const parts = [...store.progress.values()].filter((item) => item.round === run.round).sort((a, b) => (a.device_name < b.device_name ? -1 : 1));
      syncList(list, template, parts, (item) => item.assignment_id, (row, item) => paintPart(row, item, words));
      const empty = root.querySelector("[data-empty]");
      show(empty, parts.length === 0);
      if (!parts.length) setText(empty, run.reason || "No device is selected yet.");
      this.second();
    },
    second() {
      const { run } = store;
      const element = field(root, "deadline");
      if (!run.deadline_at) return setText(element, "");
      const left = Date.parse(run.deadline_at) - store.now();
      return setText(element, left > 0 ? `${countdown(left)} to the deadline` : "the deadline has passed");
    },
  };
}

function paintBar(bar, run) {
  const whole = Math.max(run.selected || run.cohort_size, run.quorum, 1);
  setAttribute(bar.querySelector(".fill"), "width", (100 * run.updates_received) / whole);
  const mark = bar.querySelector(".quorum-mark");
  setAttribute(mark, "x1", (100 * run.quorum) / whole);
  setAttribute(mark, "x2", (100 * run.quorum) / whole);
}

function paintPart(row, item, words) {
  const word = words.assignment[item.phase] ?? words.assignment.assigned;
  const progress = item.phase === "accepted" ? 1 : (item.progress ?? 0);
  setField(row, "name", item.device_name ?? "");
  const bar = field(row, "progress");
  if (bar.value !== progress) bar.value = progress;
  setAttribute(bar, "aria-label", `Progress of ${item.device_name}`);
  const atWork = item.phase === "training" && item.local_epoch ? `Epoch ${item.local_epoch} of ${item.local_epochs}` : word.word;
  setWord(field(row, "state"), word, row, atWork);
  setAttribute(field(row, "state"), "title", item.reason ?? "");
  setAttribute(row, "data-open", OPEN_PHASES.has(item.phase));
}

export function mountDevices(store, refresh) {
  const root = part("devices");
  if (!root) return null;
  const list = root.querySelector("[data-list]");
  const template = document.getElementById("device-template");
  const reloads = list.dataset.reload !== undefined;
  return {
    slices: ["devices", "progress"],
    paint() {
      const devices = byName(store);
      const atWork = new Map([...store.progress.values()].filter((item) => OPEN_PHASES.has(item.phase)).map((item) => [item.device_id, item]));
      setField(part("counts") ?? root, "online", String(onlineOf(store)));
      setField(part("counts") ?? root, "total", String(devices.length));
      const fill = (row, device) => paintDevice(row, device, store.words, root.dataset.task, atWork.get(device.device_id));
      if (!reloads) syncList(list, template, devices.slice(0, 50), (device) => device.device_id, fill);
      else if (paintKnown(list, devices, fill)) refresh();
      show(root.querySelector("[data-empty]"), devices.length === 0);
    },
  };
}

/** Paint the rows that the server rendered; say whether some are missing or need other actions. */
function paintKnown(list, devices, fill) {
  const rows = new Map([...list.children].map((row) => [row.dataset.key, row]));
  return devices.map((device) => {
    const row = rows.get(String(device.device_id));
    if (row) fill(row, device);
    const actions = row?.querySelector("[data-actions]");
    return !row || (actions && actions.dataset.state !== device.state);
  }).some(Boolean);
}

function paintDevice(row, device, words, task, work) {
  setField(row, "name", device.name);
  setField(row, "version", device.edge_version);
  // A device's own status is told when it comes and goes; what it does now is told by its part of the round.
  const now = work ? { ...device, activity: work.phase } : { ...device, activity: task ? "idle" : device.activity };
  const cell = field(row, "state");
  setWord(cell.firstElementChild, deviceWord(words, now), cell);
  setAttribute(cell.firstElementChild, "title", device.reason);
  const round = work ? work.round : task ? null : device.round;
  setField(row, "work", round ? `round ${round}` : "");
  setField(row, "examples", integer(device.num_examples[task]));
  const offers = Object.entries(device.num_examples).map(([name, count]) => `${name} (${integer(count)})`);
  setField(row, "tasks", offers.join(", "));
  paintHeard(field(row, "heard"), device.last_heard_at);
}

function paintHeard(cell, iso) {
  if (!iso) return;
  let moment = cell.querySelector("time");
  if (!moment) {
    moment = document.createElement("time");
    moment.dataset.clock = "time";
    cell.replaceChildren(moment);
  }
  setTime(moment, iso, asTime);
}

export function mountRounds(store) {
  const root = part("rounds");
  if (!root || !store.run) return null;
  const list = root.querySelector("[data-list]");
  const template = document.getElementById("round-template");
  return {
    slices: ["rounds"],
    paint() {
      const rounds = inOrder(store.rounds).slice(-TABLE_ROUNDS).reverse();
      syncList(list, template, rounds, (line) => line.number, (row, line) => paintRoundRow(row, line, store.words, root.dataset.run));
      show(root.querySelector("[data-empty]"), rounds.length === 0);
    },
  };
}

const INITIAL = { word: "Initial model", tone: "plain", icon: "circle-dot" };

function paintRoundRow(row, line, words, run) {
  setField(row, "number", String(line.number));
  const cell = field(row, "state");
  setWord(cell.firstElementChild, line.state === "initial" ? INITIAL : words.round[line.state], cell);
  setAttribute(cell.firstElementChild, "title", line.reason);
  setField(row, "accuracy", percent(valueOf(line, "accuracy", false)));
  setField(row, "loss", loss(valueOf(line, "loss", false)));
  setField(row, "updates", line.number ? `${line.updates_received} of ${line.selected}` : "");
  setField(row, "time", seconds(line.duration_seconds));
  paintModel(field(row, "model"), line, run);
}

function paintModel(cell, line, run) {
  if (line.version === null) return;
  let link = cell.querySelector("a");
  if (!link) {
    link = document.createElement("a");
    link.download = "";
    cell.replaceChildren(link);
  }
  setAttribute(link, "href", `/api/v1/runs/${run}/models/${line.version}/weights/`);
  setText(link, `v${line.version}`);
  const mark = line.is_best ? " best" : "";
  if ((link.nextSibling?.textContent ?? "").trimEnd() !== mark) cell.replaceChildren(link, mark);
}

export function mountFeed(store) {
  const root = part("feed");
  if (!root) return null;
  const list = root.querySelector("[data-list]");
  const template = document.getElementById("event-template");
  // What moves under a pointer or the keyboard's focus cannot be read: it waits until they leave.
  const frame = list.parentElement;
  const isRead = () => frame.matches(":hover, :focus-within");
  let waits = false;
  const paint = () => {
    waits = isRead();
    if (waits) return;
    syncList(list, template, store.told, (line) => line.key, paintEvent);
    show(root.querySelector("[data-empty]"), store.told.length === 0);
  };
  for (const end of ["pointerleave", "focusout"]) frame.addEventListener(end, () => waits && setTimeout(paint));
  return { slices: ["feed"], paint };
}

function paintEvent(row, line) {
  if (field(row, "title").textContent === line.title && row.querySelector("time").getAttribute("datetime")) return;
  setTone(row, line.tone);
  setAttribute(row.querySelector("use"), "href", row.querySelector("use").getAttribute("href").replace(/#.*/, `#${line.icon}`));
  setField(row, "title", line.title);
  setField(row, "detail", line.detail);
  setTime(row.querySelector("time"), line.timestamp, asTime);
}

export function mountRunList(store) {
  const root = part("runs");
  if (!root) return null;
  return {
    slices: ["runs", "models"],
    paint() {
      for (const row of root.querySelectorAll("[data-run]")) {
        const status = store.runs.get(Number(row.dataset.run));
        if (!status) continue;
        const cell = field(row, "state");
        setWord(cell.firstElementChild, store.words.run[status.state], cell);
        const over = status.round !== null && ["completed", "failed", "stopped"].includes(status.round_state);
        setField(row, "rounds", `${status.round === null ? 0 : status.round - (over ? 0 : 1)} of ${status.rounds}`);
      }
      const model = store.lastModel;
      const row = model?.is_best && root.querySelector(`[data-run="${model.run_id}"]`);
      if (row) setField(row, "best", percent(model.metrics?.accuracy));
    },
  };
}

export function mountGuide(store) {
  const root = part("guide");
  if (!root) return null;
  return {
    slices: ["devices", "runs"],
    paint() {
      // A first run is there: the page is another one from now on, unless it is on its way there already.
      if (store.runs.size) return root.querySelector("[aria-disabled]") ? undefined : location.reload();
      const online = onlineOf(store);
      setField(root, "online", String(online));
      root.querySelector('[data-step="devices"]').className = `step ${online ? "done" : "now"}`;
      root.querySelector('[data-step="devices"] .button')?.classList.toggle("primary", online === 0);
      root.querySelector('[data-step="run"]').className = `step ${online ? "now" : ""}`;
      const ready = [...store.devices.values()].filter((device) => isOnline(device) && device.state === "active" && device.tasks.includes("digits"));
      show(root.querySelector("[data-demo]"), ready.length > 0);
      if (ready.length) setField(root, "demo_note", `${ready.length} device${ready.length === 1 ? "" : "s"} ready to learn handwritten digits`);
      return undefined;
    },
  };
}

export function mountPending(store, refresh) {
  const root = part("pending");
  if (!root) return null;
  return {
    slices: ["devices"],
    paint() {
      const waiting = [...store.devices.values()].filter((device) => device.state === "pending").map((device) => String(device.device_id));
      const shown = [...root.querySelectorAll("[data-key]")].map((row) => row.dataset.key);
      if (waiting.sort().join() !== shown.sort().join()) refresh();
    },
  };
}
