// One round: its devices' parts change in place; how one ended, and the round's own facts, are the server's to write.

import { field, part, setField, setWord } from "../dom.js";
import { OPEN_PHASES } from "../fleet.js";
import { loss, percent } from "../format.js";
import { Reader } from "../reread.js";

export function mount(store) {
  const root = part("round-detail");
  if (!root || !store.run) return null;
  const number = Number(root.dataset.round);
  const rows = () => root.querySelectorAll("tbody > [data-key]");
  const paintRows = () => {
    for (const row of rows()) {
      const item = store.progress.get(Number(row.dataset.key));
      if (item && OPEN_PHASES.has(row.dataset.state)) paintRow(row, item, store.words);
    }
    const line = store.rounds.get(number);
    if (!line) return;
    setField(root, "received", String(line.updates_received));
    setField(root, "lost", String(line.updates_lost));
  };
  const isBehind = () => {
    const facts = root.querySelector('[data-fresh="facts"]').dataset;
    const line = store.rounds.get(number);
    if (line && (line.state !== facts.state || String(line.selected) !== facts.selected)) return true;
    if (store.run.round === number && Date.parse(store.run.deadline_at) > Date.parse(facts.deadline)) return true;
    // A round that follows makes a link to it.
    if (store.run.round > number && Number(facts.newest) <= number) return true;
    return [...rows()].some((row) => {
      const item = store.progress.get(Number(row.dataset.key));
      return item && OPEN_PHASES.has(row.dataset.state) && !OPEN_PHASES.has(item.phase);
    });
  };
  const reader = new Reader(root, { every: 2000, onRead: paintRows });
  return {
    slices: ["runs", "rounds", "progress"],
    paint() {
      paintRows();
      if (isBehind()) reader.ask();
    },
  };
}

function paintRow(row, item, words) {
  const cell = field(row, "state");
  setWord(cell.firstElementChild, words.assignment[item.phase] ?? words.assignment.assigned, cell);
  setField(row, "reason", item.reason ?? "");
  setField(row, "progress", percent(item.phase === "accepted" ? 1 : item.progress));
  if (item.loss !== null && item.loss !== undefined) setField(row, "loss", loss(item.loss));
}
