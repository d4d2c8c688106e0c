// The events of a run on the newest page: what has happened since is told by the server, and waits while somebody reads.

import { part } from "../dom.js";
import { Reader } from "../reread.js";

export function mount(store) {
  const root = part("run-events");
  if (!root || root.dataset.newest === undefined) return null;
  const list = root.querySelector(".log");
  const reader = new Reader(root, { every: 3000, waits: () => list.matches(":hover, :focus-within") });
  let known = store.told;
  let newest;
  return {
    slices: ["feed"],
    paint() {
      // The store begins without events: what it has was told after the page was rendered. Where it began anew, a position
      // was lost, and with it events that were not told here.
      if (store.told !== known || store.told[0]?.key !== newest) reader.ask();
      known = store.told;
      newest = known[0]?.key;
    },
  };
}
