// The first-run guide, whose steps tick themselves.

import { part, setField, show } from "../dom.js";
import { isOnline, onlineOf } from "../fleet.js";
import { ngettext } from "../texts.js";

export function mount(store) {
  const root = part("guide");
  if (!root) return null;
  return {
    slices: ["devices", "runs"],
    paint() {
      // A first run is there: the page is another one from now on, unless it is on its way there already.
      if (store.runs.size) return root.querySelector("[aria-disabled]") ? undefined : location.reload();
      const online = onlineOf(store);
      setField(root, "online", String(online));
      root.querySelector('[data-step="devices"]').className = `step ${online ? "done" : "now"}`;
      root.querySelector('[data-step="devices"] .button')?.classList.toggle("primary", online === 0);
      root.querySelector('[data-step="run"]').className = `step ${online ? "now" : ""}`;
      const ready = [...store.devices.values()].filter((device) => isOnline(device) && device.state === "active" && device.tasks.includes("digits"));
      show(root.querySelector("[data-demo]"), ready.length > 0);
      if (ready.length) setField(root, "demo_note", ngettext("{count} device ready to learn handwritten digits", "{count} devices ready to learn handwritten digits", ready.length));
      return undefined;
    },
  };
}
