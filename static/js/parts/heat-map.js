// The map of participation: the server draws it anew as the round goes on, at most every five seconds; under the pointer
// it says which round and device a cell is of, and how that ended.

import { part, setField } from "../dom.js";
import { Reader } from "../reread.js";
import { gettext, within } from "../texts.js";

const WORDS = { a: "accepted", l: "late", r: "rejected", f: "failed", e: "expired", c: "cancelled" };

/** Return the round and row under a point of the cells, and the letter of the cell; null beside them. */
export function cellAt(x, y, rows, { step, row, head, first }) {
  const column = Math.floor(x / step);
  const line = Math.floor((y - head) / row);
  const letter = line >= 0 && column >= 0 ? rows[line]?.[column] : undefined;
  return letter === undefined ? null : { round: first + column, line, letter };
}

export function mount(store) {
  const root = part("heat-map");
  if (!root || !store.run) return null;
  const reader = new Reader(root, { every: 5000 });
  root.addEventListener("pointermove", (event) => showCell(root, event, store.words));
  return {
    slices: ["runs"],
    paint() {
      const { round, round_state, updates_received, updates_lost } = store.run;
      const said = `${round ?? ""} ${round_state ?? ""} ${updates_received} ${updates_lost}`;
      if (root.querySelector('[data-fresh="map"]').dataset.said !== said) reader.ask();
    },
  };
}

function showCell(root, event, words) {
  const svg = event.target.closest?.(".map-cells");
  if (!svg) return;
  const names = [...root.querySelectorAll("[data-cells]")];
  const { left, top } = svg.getBoundingClientRect();
  const { step, row, head } = root.dataset;
  const { first } = root.querySelector('[data-fresh="map"]').dataset;
  const place = { step: Number(step), row: Number(row), head: Number(head), first: Number(first) };
  const found = cellAt(event.clientX - left, event.clientY - top, names.map((name) => name.dataset.cells), place);
  if (!found) return;
  const places = { round: found.round, device: names[found.line].textContent, state: within(wordOf(found.letter, words)) };
  setField(root, "reading", gettext("Round {round}, {device}: {state}", places));
}

function wordOf(letter, words) {
  if (letter === ".") return gettext("Not selected");
  return words.assignment[WORDS[letter]]?.word ?? gettext("In progress");
}
