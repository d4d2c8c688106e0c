// Times that the server rendered, written in the viewer's zone.

import { setText } from "./dom.js";
import { clock } from "./format.js";

export const asTime = (element) => setText(element, clock(element.getAttribute("datetime"), element.dataset.clock));

/** Write every time that the server rendered in the viewer's zone. */
export function localizeTimes(root = document) {
  for (const element of root.querySelectorAll("time[data-clock]")) {
    const iso = element.getAttribute("datetime");
    if (!iso) continue;
    element.title = iso;
    asTime(element);
  }
  setText(document.querySelector("[data-zone]"), Intl.DateTimeFormat().resolvedOptions().timeZone);
}
