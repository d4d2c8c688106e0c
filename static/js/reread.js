// What the server makes anew: parts of a page marked `data-fresh` are read again, at most once in a while. Rows with a
// `data-key` that read alike stay the same elements; what is open stays open, and the focus stays where it was.

import { move } from "./dom.js";
import { localizeTimes } from "./times.js";

const FOCUSABLE = "a, button, summary, [tabindex]";

/** Reads the page's address again when asked to, and at most every so many milliseconds. */
export class Reader {
  #timer = null;
  #last = -Infinity;

  /**
   * @param {Element} root what holds the parts
   * @param {object} options
   * @param {number} [options.every] the least time between two readings, in ms
   * @param {() => void} [options.onRead] is called when the parts are new
   * @param {(answer: Response) => void} [options.onRefused] is called when the server answers, and not with the page
   * @param {() => boolean} [options.waits] says whether somebody reads here, so that nothing may move
   */
  constructor(root, { every = 3000, onRead = () => {}, onRefused = () => {}, waits = () => false } = {}) {
    Object.assign(this, { root, every, onRead, onRefused, waits });
  }

  /** Read again as soon as may be. */
  ask() {
    if (this.#timer !== null) return;
    const wait = Math.max(0, this.#last + this.every - performance.now());
    this.#timer = setTimeout(() => this.#due(), wait);
  }

  #due() {
    // Nobody looks, or somebody reads: what there is then is read when that ends.
    if (document.visibilityState === "hidden") {
      document.addEventListener("visibilitychange", () => this.#due(), { once: true });
      return;
    }
    this.#timer = null;
    if (this.waits()) {
      this.#last = performance.now();
      this.ask();
    } else {
      this.#read();
    }
  }

  async #read() {
    this.#last = performance.now();
    try {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      // Led elsewhere, to the login: the socket ends as well, and says so.
      if (answer.redirected) return;
      if (!answer.ok) {
        this.onRefused(answer);
        return;
      }
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of this.root.querySelectorAll("[data-fresh]")) {
        const newer = fresh.querySelector(`[data-fresh="${part.dataset.fresh}"]`);
        if (newer) renew(part, newer);
      }
      this.onRead();
    } catch {
      // The server is away: the pill says so, and what comes when it is back asks again.
    }
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
  for (const row of rows.values()) row.remove();
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
