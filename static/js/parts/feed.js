// The feed of events, newest first; it can be narrowed to troubles, and stands still while somebody reads in it.

import { field, fillList, part, setAttribute, setField, setIcon, setTime, setTone, show } from "../dom.js";
import { SEVERITIES, fold } from "../feed.js";
import { asTime } from "../times.js";
import { choose, chosen } from "../view.js";

const ROWS = 50;

export function mount(store) {
  const root = part("feed");
  if (!root) return null;
  const list = root.querySelector("[data-list]");
  const template = document.getElementById("event-template");
  // What moves under a pointer or the keyboard's focus cannot be read: it waits until they leave.
  const frame = list.parentElement;
  const isRead = () => frame.matches(":hover, :focus-within");
  let severity = chosen("severity") in SEVERITIES ? chosen("severity") : "";
  let waits = false;
  const paint = () => {
    waits = isRead();
    if (!waits) paintNow();
  };
  const paintNow = () => {
    const tones = SEVERITIES[severity];
    const lines = fold(store.told.filter((line) => !tones || tones.has(line.tone))).slice(0, ROWS);
    fillList(list, template, lines, paintEvent);
    show(root.querySelector("[data-empty]"), lines.length === 0);
  };
  for (const end of ["pointerleave", "focusout"]) frame.addEventListener(end, () => waits && setTimeout(paint));
  for (const link of root.querySelectorAll("[data-severity]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      severity = link.dataset.severity;
      choose({ severity });
      for (const other of root.querySelectorAll("[data-severity]")) mark(other, other === link);
      paintNow();
    });
  }
  return { slices: ["feed"], paint };
}

function mark(link, isCurrent) {
  if (isCurrent) link.setAttribute("aria-current", "true");
  else link.removeAttribute("aria-current");
}

function paintEvent(row, line) {
  setField(row, "count", line.count > 1 ? `×${line.count}` : "");
  if (row.dataset.key === line.key) return;
  row.dataset.key = line.key;
  setTone(row, line.tone);
  setIcon(row, line.icon);
  setField(row, "title", line.title);
  setField(row, "detail", line.detail);
  setAttribute(row, "title", [line.title, line.detail].filter(Boolean).join(": "));
  setTime(row.querySelector("time"), line.timestamp, asTime);
}
