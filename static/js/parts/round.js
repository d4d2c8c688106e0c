// The current round: its phase, the updates against the quorum, the time to the deadline, and each device's part.

import { field, part, setAttribute, setField, setText, setWord, show, syncList } from "../dom.js";
import { OPEN_PHASES } from "../fleet.js";
import { countdown } from "../format.js";
import { paintMosaic } from "../mosaic.js";
import { gettext } from "../texts.js";

/** Above so many devices a mosaic shows them all, and the list only those that want a look. */
const LISTED = 32;
const NOTABLE = 6;

export function mount(store) {
  const root = part("round");
  if (!root || !store.run) return null;
  const title = document.getElementById("round-title");
  const list = root.querySelector("[data-list]");
  const template = document.getElementById("part-template");
  return {
    slices: ["runs", "progress"],
    paint() {
      const { run, words } = store;
      setText(title, run.round === null ? gettext("No round yet") : gettext("Round {round}", { round: run.round }));
      setWord(field(root, "chip"), words.round[run.round_state ?? "pending"]);
      setAttribute(field(root, "phases"), "data-state", run.round_state ?? "");
      setField(root, "received", gettext("{received} of {selected}", { received: run.updates_received, selected: run.selected }));
      setField(root, "lost", run.updates_lost ? gettext("{count} lost", { count: run.updates_lost }) : "");
      setField(root, "quorum", gettext("quorum {quorum} of {cohort}", { quorum: run.quorum, cohort: run.cohort_size }));
      paintBar(field(root, "bar"), run);
      const parts = inOrder([...store.progress.values()].filter((item) => item.round === run.round), words.troubled);
      const isLarge = parts.length > LISTED;
      const listed = isLarge ? parts.filter((item) => item.phase !== "accepted").slice(0, NOTABLE) : parts;
      paintMosaic(field(root, "mosaic"), isLarge ? parts.map((item) => cellOf(item, words)) : []);
      syncList(list, template, listed, (item) => item.assignment_id, (row, item) => paintPart(row, item, words));
      const empty = root.querySelector("[data-empty]");
      show(empty, parts.length === 0);
      if (!parts.length) setText(empty, run.reason || gettext("No device is selected yet."));
      const foot = field(root, "foot");
      show(foot, run.round !== null);
      setAttribute(foot.firstElementChild, "href", `/runs/${run.run_id}/rounds/${run.round}/`);
      this.second();
    },
    second() {
      const { run } = store;
      const element = field(root, "deadline");
      if (!run.deadline_at) return setText(element, "");
      const left = Date.parse(run.deadline_at) - store.now();
      return setText(element, left > 0 ? gettext("{time} to the deadline", { time: countdown(left) }) : gettext("the deadline has passed"));
    },
  };
}

/** Order the devices' parts of a round by name, those in trouble first, as the server does. */
export function inOrder(parts, troubled) {
  const isCalm = (item) => (troubled.includes(item.phase) ? 0 : 1);
  return parts.sort((a, b) => isCalm(a) - isCalm(b) || (a.device_name < b.device_name ? -1 : 1));
}

function cellOf(item, words) {
  const { word, tone } = words.assignment[item.phase] ?? words.assignment.assigned;
  return { word, tone, name: item.device_name };
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
  setAttribute(bar, "aria-label", gettext("Progress of {device}", { device: item.device_name }));
  const atWork = item.phase === "training" && item.local_epoch ? gettext("Epoch {epoch} of {epochs}", { epoch: item.local_epoch, epochs: item.local_epochs }) : word.word;
  setWord(field(row, "state"), word, row, atWork);
  setAttribute(field(row, "state"), "title", item.reason ?? "");
  setAttribute(row, "data-open", OPEN_PHASES.has(item.phase));
}
