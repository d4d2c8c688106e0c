// The table of rounds, newest first.

import { field, part, setAttribute, setField, setText, setWord, show, syncList } from "../dom.js";
import { loss, percent, seconds } from "../format.js";
import { inOrder, valueOf } from "../series.js";
import { gettext } from "../texts.js";

const TABLE_ROUNDS = 40;

export function mount(store) {
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

const INITIAL = { word: gettext("Initial model"), tone: "plain", icon: "circle-dot" };

function paintRoundRow(row, line, words, run) {
  setField(row, "number", String(line.number));
  const cell = field(row, "state");
  setWord(cell.firstElementChild, line.state === "initial" ? INITIAL : words.round[line.state], cell);
  setAttribute(cell.firstElementChild, "title", line.reason);
  setField(row, "accuracy", percent(valueOf(line, "accuracy", false)));
  setField(row, "loss", loss(valueOf(line, "loss", false)));
  setField(row, "updates", line.number ? gettext("{received} of {selected}", { received: line.updates_received, selected: line.selected }) : "");
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
  const mark = line.is_best ? ` ${gettext("best")}` : "";
  if ((link.nextSibling?.textContent ?? "").trimEnd() !== mark) cell.replaceChildren(link, mark);
}
