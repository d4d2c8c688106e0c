// The feed of events, newest first; it stands still while somebody reads in it.

import { field, part, setAttribute, setField, setTime, setTone, show, syncList } from "../dom.js";
import { asTime } from "../times.js";

export function mount(store) {
  const root = part("feed");
  if (!root) return null;
  const list = root.querySelector("[data-list]");
  const template = document.getElementById("event-template");
  // What moves under a pointer or the keyboard's focus cannot be read: it waits until they leave.
  const frame = list.parentElement;
  const isRead = () => frame.matches(":hover, :focus-within");
  let waits = false;
  const paint = () => {
    waits = isRead();
    if (waits) return;
    syncList(list, template, store.told, (line) => line.key, paintEvent);
    show(root.querySelector("[data-empty]"), store.told.length === 0);
  };
  for (const end of ["pointerleave", "focusout"]) frame.addEventListener(end, () => waits && setTimeout(paint));
  return { slices: ["feed"], paint };
}

function paintEvent(row, line) {
  if (field(row, "title").textContent === line.title && row.querySelector("time").getAttribute("datetime")) return;
  setTone(row, line.tone);
  setAttribute(row.querySelector("use"), "href", row.querySelector("use").getAttribute("href").replace(/#.*/, `#${line.icon}`));
  setField(row, "title", line.title);
  setField(row, "detail", line.detail);
  setTime(row.querySelector("time"), line.timestamp, asTime);
}
