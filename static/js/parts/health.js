// The server's health: measured again when the socket brings something, which it does at least with each heartbeat.

import { field, part, setField, show } from "../dom.js";
import { Reader } from "../reread.js";

export function mount(store, { wire }) {
  if (!part("health")) return null;
  const root = document.getElementById("main");
  const trouble = field(root, "trouble");
  const reader = new Reader(root, {
    every: 5000,
    // Who marks a text wants to copy it.
    waits: () => !getSelection().isCollapsed,
    onRead: () => show(trouble, false),
    onRefused({ status, statusText }) {
      setField(trouble, "status", `${status} ${statusText}`.trim());
      show(trouble, true);
    },
  });
  wire.hear((direction) => direction === "in" && reader.ask());
  return {};
}
