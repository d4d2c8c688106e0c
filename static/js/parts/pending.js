// Devices that wait for approval: the server makes the rows, since they hold forms.

import { part } from "../dom.js";

export function mount(store, { refresh }) {
  const root = part("pending");
  if (!root) return null;
  return {
    slices: ["devices"],
    paint() {
      const waiting = [...store.devices.values()].filter((device) => device.state === "pending").map((device) => String(device.device_id));
      const shown = [...root.querySelectorAll("[data-key]")].map((row) => row.dataset.key);
      if (waiting.sort().join() !== shown.sort().join()) refresh();
    },
  };
}
