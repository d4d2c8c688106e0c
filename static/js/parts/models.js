// The published versions: the server writes a new one's row, and moves the marks of the best and the last.

import { part } from "../dom.js";
import { Reader } from "../reread.js";

export function mount(store) {
  const root = part("models");
  if (!root || !store.run) return null;
  const isFirstPage = root.dataset.page === "1";
  const reader = new Reader(root, { every: 2000 });
  return {
    slices: ["runs", "models"],
    paint() {
      const { model_version: newest, best_version: best } = store.run;
      const rows = [...root.querySelectorAll("tbody > [data-key]")];
      const shown = Math.max(-1, ...rows.map((row) => Number(row.dataset.key)));
      const isBest = (row) => row.dataset.key === String(best);
      const isMoved = rows.some((row) => isBest(row) !== (row.dataset.best !== undefined));
      if (isMoved || (isFirstPage && newest !== null && newest > shown)) reader.ask();
    },
  };
}
