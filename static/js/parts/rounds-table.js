// The table of all rounds: open rows change in place; what a round has come to is the server's to write.

import { field, part, setField, setWord } from "../dom.js";
import { Reader } from "../reread.js";

const OVER = new Set(["completed", "failed", "stopped"]);

/** Say whether the server's table lacks something: a newer round on its first page, or how an open one ended. */
export function isBehind(rows, rounds, { filter, page }) {
  const numbers = rounds.filter((line) => !filter || line.state === filter).map((line) => line.number);
  const newest = Math.max(-1, ...rows.map((row) => row.number));
  if (page === 1 && numbers.some((number) => number > newest)) return true;
  const shown = new Map(rows.map((row) => [row.number, row.state]));
  return rounds.some((line) => OVER.has(line.state) && shown.has(line.number) && isOpen(shown.get(line.number)));
}

const isOpen = (state) => !OVER.has(state) && state !== "initial";

export function mount(store) {
  const root = part("rounds-table");
  if (!root || !store.run) return null;
  const view = { filter: root.dataset.filter, page: Number(root.dataset.page) };
  const rows = () => [...root.querySelectorAll("tbody > [data-key]")];
  const paintRows = () => {
    for (const row of rows()) {
      const line = store.rounds.get(Number(row.dataset.key));
      // What has ended is as the server wrote it.
      if (line && isOpen(row.dataset.state)) paintRow(row, line, store.words);
    }
  };
  const reader = new Reader(root, { every: 2000, onRead: paintRows });
  return {
    slices: ["rounds"],
    paint() {
      paintRows();
      const shown = rows().map((row) => ({ number: Number(row.dataset.key), state: row.dataset.state }));
      if (isBehind(shown, [...store.rounds.values()], view)) reader.ask();
    },
  };
}

function paintRow(row, line, words) {
  const cell = field(row, "state");
  setWord(cell.firstElementChild, words.round[line.state] ?? words.round.pending, cell);
  setField(row, "reason", line.reason);
  setField(row, "selected", String(line.selected));
  setField(row, "received", String(line.updates_received));
  setField(row, "lost", String(line.updates_lost));
}
