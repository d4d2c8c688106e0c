// The page of all events: those that come are announced, and shown when the reader asks for them, never before.

import { part, setText, show } from "../dom.js";
import { matches, readFilter } from "../event-filter.js";
import { readsAsBefore } from "../feed.js";
import { integer } from "../format.js";
import { gettext, ngettext } from "../texts.js";
import { localizeTimes } from "../times.js";
import { notify } from "./notices.js";

const KEPT = 1000;

/** Events that wait to be shown: all are counted, and only the newest kept one by one. */
export class Waiting {
  kept = [];
  #others = 0;

  get count() {
    return this.#others + this.kept.length;
  }

  take({ stream, seq }) {
    this.kept.push({ stream, seq });
    if (this.kept.length <= KEPT) return;
    this.kept.shift();
    this.#others += 1;
  }

  /** Leave out those that a page has which was rendered at these positions. */
  leaveOut(positions) {
    this.#others = 0; // a page just read has what came before a thousand others
    this.kept = this.kept.filter(({ stream, seq }) => seq > (positions[stream]?.seq ?? Infinity));
  }
}

export function mount(store, { frames, readAgain }) {
  const root = part("events");
  // Pages of older events stay as they are.
  if (!root?.dataset.newest) return null;
  const list = root.querySelector("[data-list]");
  const button = root.querySelector("[data-show]");
  const filter = readFilter(root.dataset);
  const readings = readingsOf(list);
  const waiting = new Waiting();
  let isLost = false;
  let known = store.told;

  const isNews = (frame) => {
    if (!matches(filter, frame, store.words)) return false;
    return filter.raw || !readsAsBefore(readings, store.words, frame.event, frame.data);
  };
  frames.hear((frame) => {
    if (isNews(frame)) waiting.take(frame);
  });
  button.addEventListener("click", async () => {
    button.setAttribute("aria-disabled", "true");
    try {
      const fresh = await readAgain();
      insert(root, list, fresh);
      waiting.leaveOut(JSON.parse(fresh.getElementById("state").textContent).positions);
      isLost = false;
      show(root.querySelector("[data-empty]"), list.children.length === 0);
      list.querySelector("a")?.focus();
    } catch (error) {
      notify({ severity: "error", title: gettext("The new events could not be read"), detail: String(error.message ?? error) });
    } finally {
      button.removeAttribute("aria-disabled");
      announce();
    }
  });
  const announce = () => {
    const { count } = waiting;
    show(button, count > 0 || isLost);
    if (isLost) setText(button, gettext("The connection began anew: show what is new"));
    else if (count > 0) setText(button, ngettext("{count} new event: show", "{count} new events: show", count, { count: integer(count) }));
  };
  return {
    slices: ["feed"],
    paint() {
      // What the page began with was replaced: a position was lost, and with it events that were not told here.
      if (store.told === known) return;
      known = store.told;
      isLost = true;
    },
    second: announce,
  };
}

/** Return how the newest status of each run and device reads that stands in the list. */
function readingsOf(list) {
  const rows = [...list.querySelectorAll("[data-status-of]")].reverse();
  return new Map(rows.map(({ dataset }) => [dataset.statusOf, dataset.reading]));
}

/** Put the lines that are not there yet above the others; where none of them is known, all begins anew, and what is older. */
function insert(root, list, fresh) {
  const lines = [...fresh.querySelectorAll('[data-list="events"] > li')];
  const known = new Set([...list.children].map((line) => line.dataset.key));
  const newer = lines.filter((line) => !known.has(line.dataset.key));
  if (newer.length < lines.length) list.prepend(...newer);
  else {
    list.replaceChildren(...newer);
    root.querySelector("[data-older]").replaceWith(fresh.querySelector("[data-older]"));
  }
  localizeTimes();
}
