// Notices: errors stay until they are dismissed, others leave after six seconds; equal ones become one with a count.

import { field, part, setAttribute, setField, setIcon, setText, setTone, show } from "../dom.js";
import { plain } from "../format.js";
import { gettext } from "../texts.js";

const TONES = { error: ["bad", "circle-alert"], warning: ["warn", "triangle-alert"], info: ["plain", "info"] };
const MOST = 3;
const SECONDS = 6;

/**
 * Show a notice. It stands in a place of its own, which stays when it leaves, so that nothing moves under a reader's
 * hand. Where none is free, an error takes that of the oldest notice that is none; everything else is counted.
 */
export function notify({ severity, title, detail, count = 1 }) {
  const root = part("notices");
  const template = document.getElementById("notice-template");
  if (!root || !template) return;
  const places = [...root.querySelectorAll(".notice")];
  const same = places.find((notice) => notice.dataset.title === title);
  if (same) return repeat(same, detail, count);
  const place = places.find(isFree) ?? (places.length < MOST ? addPlace(root, template) : severity === "error" && places.find((notice) => notice.dataset.severity !== "error"));
  if (place) return occupy(place, { severity, title, detail, count });
  return countMore(root, count);
}

const isFree = (notice) => !("title" in notice.dataset);

function repeat(notice, detail, count) {
  notice.dataset.count = String(Number(notice.dataset.count) + count);
  setText(field(notice, "title"), `${notice.dataset.title} (×${notice.dataset.count})`);
  setText(field(notice, "detail"), detail);
}

function occupy(place, { severity, title, detail, count }) {
  const [tone, icon] = TONES[severity] ?? TONES.error;
  clearTimeout(leaving.get(place));
  Object.assign(place.dataset, { title, severity, count: String(count) });
  setTone(place, tone);
  setIcon(place, icon);
  setText(field(place, "title"), count > 1 ? `${title} (×${count})` : title);
  setText(field(place, "detail"), detail);
  setAttribute(place, "title", `${title}. ${detail}`);
  if (severity !== "error") leaving.set(place, setTimeout(() => free(place), SECONDS * 1000));
}

const leaving = new WeakMap();

function addPlace(root, template) {
  const place = template.content.firstElementChild.cloneNode(true);
  place.querySelector("[data-dismiss]").addEventListener("click", () => free(place));
  root.insertBefore(place, field(root, "more"));
  return place;
}

/** Make a place free; those at the end of the row go, and with the last of them the count. */
function free(place) {
  const root = place.parentElement;
  clearTimeout(leaving.get(place));
  delete place.dataset.title;
  const places = [...root.querySelectorAll(".notice")];
  while (places.length && isFree(places.at(-1))) places.pop().remove();
  if (!places.length) countMore(root, null);
}

/** Count what found no place; null begins anew. */
function countMore(root, count) {
  const more = field(root, "more");
  more.dataset.count = String(count === null ? 0 : Number(more.dataset.count ?? 0) + count);
  setField(root, "more_count", more.dataset.count);
  show(more, count !== null);
}

/** Show what came since the last paint, and read round results out, at most one every eight seconds. */
export function mount(store) {
  const announcer = part("announcer");
  let spoken = 0;
  return {
    slices: ["news", "completed"],
    paint() {
      for (const item of store.news.splice(0)) notify(item);
      const result = store.lastCompleted;
      if (!result || !announcer || Date.now() - spoken < 8000) return;
      spoken = Date.now();
      const accuracy = result.metrics?.accuracy;
      const { round } = result;
      const said = () => gettext("Round {round} completed, accuracy {share} per cent", { round, share: plain((accuracy * 100).toFixed(1)) });
      setText(announcer, typeof accuracy === "number" ? said() : gettext("Round {round} completed", { round }));
    },
  };
}
