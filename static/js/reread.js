// What the server makes anew: parts of a page marked `data-fresh` are read again, at most once in a while. Rows with a
// `data-key` that read alike stay the same elements; what is open stays open, also where the server no longer lists
// it, and the focus stays where it was.

import { move } from "./dom.js";
import { unhurried } from "./pieces.js";
import { localizeTimes } from "./times.js";

const FOCUSABLE = "a, button, summary, [tabindex]";

/** Reads the page's address again when asked to: one answer at a time, and what failed again later. */
export class Reader {
  /**
   * @param {Element} root what holds the parts
   * @param {object} options
   * @param {number} [options.every] the least time between two readings, in ms
   * @param {() => void} [options.onRead] is called when the parts are new
   * @param {(answer: Response) => void} [options.onRefused] is called when the server answers, and not with the page
   * @param {() => boolean} [options.waits] says whether somebody reads here, so that nothing may move
   */
  constructor(root, { every = 3000, onRead = () => {}, onRefused = () => {}, waits = () => false } = {}) {
    Object.assign(this, { root, onRead, onRefused, waits });
    const { ask, go } = unhurried(() => this.#read(), { pause: every });
    /** Read again as soon as may be. */
    this.ask = ask;
    document.addEventListener("visibilitychange", go);
  }

  async #read() {
    if (this.waits()) return this.ask(); // after the pause
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (answer.redirected) return location.reload(); // to the login, and back here
    if (!answer.ok) {
      this.onRefused(answer);
      throw new Error(`the page answered ${answer.status}`);
    }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of this.root.querySelectorAll("[data-fresh]")) {
      const newer = fresh.querySelector(`[data-fresh="${part.dataset.fresh}"]`);
      if (newer) renew(part, newer);
    }
    this.onRead();
  }
}

/** Bring a part in line with the one that the server made anew. */
function renew(part, newer) {
  localizeTimes(newer);
  for (const button of newer.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
  for (const { name, value } of newer.attributes) if (part.getAttribute(name) !== value) part.setAttribute(name, value);
  if (newer.querySelector(":scope > [data-key]")) renewRows(part, newer);
  else if (part.innerHTML !== newer.innerHTML) swap(part, newer.childNodes);
}

function renewRows(list, newer) {
  const rows = new Map([...list.children].map((row) => [row.dataset.key, row]));
  let next = list.firstElementChild;
  for (const fresh of [...newer.children]) {
    const row = rows.get(fresh.dataset.key);
    rows.delete(fresh.dataset.key);
    if (!row) {
      list.insertBefore(fresh, next);
      continue;
    }
    renewRow(row, fresh);
    if (row === next) next = next.nextElementSibling;
    else move(list, row, next);
  }
  for (const row of rows.values()) if (!row.querySelector("details[open]")) row.remove();
}

function renewRow(row, fresh) {
  const open = [...row.querySelectorAll("details")].map((details) => details.open);
  fresh.querySelectorAll("details").forEach((details, index) => (details.open = open[index] ?? false));
  if (row.outerHTML === fresh.outerHTML) return;
  for (const { name, value } of fresh.attributes) if (row.getAttribute(name) !== value) row.setAttribute(name, value);
  for (const { name } of [...row.attributes]) if (!fresh.hasAttribute(name)) row.removeAttribute(name);
  swap(row, fresh.childNodes);
}

/** Give an element other children; the focus goes to what stands at its place now, and what was scrolled stays so. */
function swap(element, children) {
  const before = [...element.querySelectorAll(FOCUSABLE)];
  const scrolled = before.map(({ scrollLeft, scrollTop }) => [scrollLeft, scrollTop]);
  const focused = before.indexOf(document.activeElement);
  element.replaceChildren(...children);
  element.querySelectorAll(FOCUSABLE).forEach((each, index) => {
    if (scrolled[index]?.some(Boolean)) each.scrollTo(...scrolled[index]);
    if (index === focused) each.focus({ preventScroll: true });
  });
}
