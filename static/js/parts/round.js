// The current round: its phase, the updates against the quorum, the time to the deadline, and each device's part.

import { field, part, setAttribute, setField, setText, setWord, show, syncList } from "../dom.js";
import { OPEN_PHASES } from "../fleet.js";
import { countdown } from "../format.js";

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
