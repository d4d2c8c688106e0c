// What a row and the page of a device have in common: the work at hand, and when it was heard.

import { field, setAttribute, setField, setTime, show } from "../dom.js";
import { share } from "../format.js";
import { gettext } from "../texts.js";
import { asTime } from "../times.js";

/** Show the part of a round that a device is at work on, or none. */
export function paintWork(root, work) {
  show(field(root, "work"), work !== undefined);
  if (!work) return;
  setField(root, "round", gettext("round {round}", { round: work.round }));
  setAttribute(field(root, "round"), "href", `/runs/${work.run_id}/`);
  const done = work.progress ?? 0;
  const bar = field(root, "progress");
  if (bar.value !== done) bar.value = done;
  setField(root, "share", share(done));
}

/** Show when a device was last heard; a cell that says "never" gets a time. */
export function paintHeard(cell, iso, kind = "date") {
  if (!iso || !cell) return;
  let moment = cell.querySelector("time");
  if (!moment) {
    moment = document.createElement("time");
    moment.dataset.clock = kind;
    cell.replaceChildren(moment);
  }
  // A page may have read a newer one than an event tells that comes late.
  if (!moment.getAttribute("datetime") || Date.parse(moment.getAttribute("datetime")) < Date.parse(iso)) setTime(moment, iso, asTime);
}
