// The list of runs: states and figures change in the rows that the server rendered.

import { field, part, setField, setWord } from "../dom.js";
import { percent } from "../format.js";

export function mount(store) {
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
