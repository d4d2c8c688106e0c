// The list of runs: states and figures change in the rows that the server rendered, and no row moves under the reader. A
// new run is told in a line. What is ticked stands in the address, so that it survives sorting, filters and a copy.

import { field, part, setAttribute, setField, setText, setWord, show } from "../dom.js";
import { loss, named, percent, seconds } from "../format.js";
import { gettext, ngettext } from "../texts.js";

const OVER = ["completed", "failed", "stopped"];

export function mount(store) {
  const root = part("runs");
  if (!root) return null;
  ticks(root);
  const rows = new Map([...root.querySelectorAll("[data-run]")].map((row) => [Number(row.dataset.run), row]));
  return {
    slices: ["runs", "figures", "trash"],
    paint() {
      for (const [id, row] of rows) {
        if (store.runs.has(id)) paintStatus(row, store.runs.get(id), store.words);
        if (store.figures.has(id)) paintFigures(row, store.figures.get(id));
        paintTrash(row, store.trashed.has(id));
      }
      paintNews(root, store);
      this.second();
    },
    second() {
      for (const row of rows.values()) {
        if (!row.dataset.started || row.dataset.ended !== undefined) continue;
        setField(row, "duration", seconds(Math.max(0, store.now() - Date.parse(row.dataset.started)) / 1000));
      }
    },
  };
}

function paintStatus(row, status, words) {
  const cell = field(row, "state");
  setWord(cell.firstElementChild, words.run[status.state], cell);
  setAttribute(cell.firstElementChild, "title", status.reason);
  setField(row, "name", status.run_name);
  const over = status.round !== null && OVER.includes(status.round_state);
  setField(row, "rounds", gettext("{done} of {rounds}", { done: status.round === null ? 0 : status.round - (over ? 0 : 1), rounds: status.rounds }));
  if (status.started_at) row.dataset.started ??= status.started_at;
}

/** A run that is in the trash keeps its row until the page is read again, and cannot be chosen. */
function paintTrash(row, isGone) {
  const box = row.querySelector("input[name=run]");
  if (box.disabled !== isGone) {
    box.disabled = isGone;
    box.checked &&= !isGone;
    box.dispatchEvent(new Event("change", { bubbles: true }));
  }
  if (isGone) setWord(field(row, "state").firstElementChild, { word: gettext("In the trash"), tone: "plain", icon: "trash-2" }, field(row, "state"));
}

function paintFigures(row, { best, last, ended_at }) {
  paintFigure(field(row, "best"), best);
  paintFigure(field(row, "last"), last);
  if (!ended_at || row.dataset.ended !== undefined) return;
  row.dataset.ended = "";
  if (row.dataset.started) setField(row, "duration", seconds(Math.max(0, Date.parse(ended_at) - Date.parse(row.dataset.started)) / 1000));
}

function paintFigure(cell, figure) {
  const value = !figure ? "–" : figure.name === "accuracy" ? percent(figure.value) : named("loss", loss(figure.value));
  setText(cell.querySelector("[data-value]"), value);
  show(cell.querySelector("[data-where]"), Boolean(figure?.on_devices));
}

function paintNews(root, store) {
  const newest = Number(root.dataset.newest);
  const count = [...store.runs.keys()].filter((id) => id > newest && !store.trashed.has(id)).length;
  setField(root, "news_count", ngettext("{count} new run", "{count} new runs", count));
  show(field(root, "news"), count > 0);
}

/** Count the ticks, let them be compared from two on, and keep them in the address and in the links that lead on. */
function ticks(root) {
  const form = root.querySelector("[data-compare]");
  const button = form.querySelector("[data-go]");
  if (!button) return;
  const throws = form.querySelector("[data-throw]");
  const most = Number(root.dataset.most);
  const boxes = [...form.querySelectorAll("input[name=run]")];
  const paint = () => {
    const chosen = boxes.filter((box) => box.checked).length;
    button.disabled = chosen < 2 || chosen > most;
    if (throws) throws.disabled = !chosen;
    setText(button.querySelector("[data-word]"), chosen ? ngettext("Compare {count} run", "Compare {count} runs", chosen) : gettext("Compare"));
    setField(form, "ticked", chosen > most ? gettext("At most {most} runs can be compared", { most }) : chosen < 2 ? gettext("Tick two to {most} runs to compare them", { most }) : "");
  };
  form.addEventListener("change", () => {
    paint();
    const ids = boxes.filter((box) => box.checked).map((box) => box.value);
    history.replaceState(history.state, "", withTicks(location.href, ids));
    for (const link of root.querySelectorAll("a[data-keeps-ticks]")) link.href = withTicks(link.href, ids);
  });
  paint();
}

/** Return an address with these runs as its ticked ones. */
export function withTicks(address, ids) {
  const url = new URL(address);
  url.searchParams.delete("run");
  for (const id of ids) url.searchParams.append("run", id);
  return url.href;
}
