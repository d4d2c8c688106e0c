// Pieces of a page that only the server can make, such as rows with forms or counts over all pages: when an event says
// that they may have changed, the page asks for them once more, and puts them in place where nobody is at work in them.

import { setAttribute } from "./dom.js";
import { localizeTimes } from "./times.js";

const PAUSE = 3000;
const PAUSE_AFTER_FAILURE = 10_000;

/** Return the address of the pieces of the page that is shown. */
export function piecesAddress(extra = {}, here = location) {
  const query = new URLSearchParams(here.search);
  query.set("pieces", "1");
  for (const [name, value] of Object.entries(extra)) if (value) query.set(name, value);
  return `${here.pathname}?${query}`;
}

/**
 * Return a function that asks for something anew: at once, but not before a pause since the last time; what is asked for
 * meanwhile is asked for once, after it. A page that nobody looks at waits until somebody does.
 *
 * @param {() => Promise<void>} read
 */
export function unhurried(read, { pause = PAUSE, isSeen = () => document.visibilityState === "visible" } = {}) {
  let wanted = false;
  let busy = false;
  const go = async () => {
    if (busy || !wanted || !isSeen()) return;
    busy = true;
    wanted = false;
    let rest = pause;
    try {
      await read();
    } catch {
      // The server is away, as the connection's pill says: it is asked again later.
      wanted = true;
      rest = Math.max(pause, PAUSE_AFTER_FAILURE);
    }
    setTimeout(() => {
      busy = false;
      go();
    }, rest);
  };
  const ask = () => {
    wanted = true;
    go();
  };
  return { ask, go };
}

/** Return a function that has the page's pieces made anew; `then` gets the answer after they are in place. */
export function piecesOf(root, { extra = () => ({}), then = () => {}, pause = PAUSE } = {}) {
  const { ask, go } = unhurried(async () => {
    const answer = await fetch(piecesAddress(extra()), { credentials: "same-origin" });
    if (answer.redirected) return location.reload(); // to the login, and back here
    if (!answer.ok) throw new Error(`the page answered ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    takePieces(root, fresh);
    then(fresh);
  }, { pause });
  document.addEventListener("visibilitychange", go);
  return ask;
}

/** Put the pieces of an answer in the place of those that differ, but for those that somebody is at work in. */
export function takePieces(root, fresh) {
  localizeTimes(fresh);
  const newer = new Map([...fresh.querySelectorAll("[data-piece]")].map((piece) => [piece.dataset.piece, piece]));
  for (const piece of root.querySelectorAll("[data-piece]")) {
    const other = newer.get(piece.dataset.piece);
    if (other && !isHeld(piece) && readingOf(piece) !== readingOf(other)) become(piece, other);
  }
}

/** Make an element like another; the element itself stays, and with it how far it is scrolled. */
function become(element, other) {
  for (const { name } of [...element.attributes]) if (!other.hasAttribute(name)) element.removeAttribute(name);
  for (const { name, value } of other.attributes) setAttribute(element, name, value);
  element.replaceChildren(...other.childNodes);
}

/** Say whether a piece has the focus, something opened, or something typed. */
function isHeld(piece) {
  if (piece.contains(document.activeElement) || piece.querySelector("details[open]")) return true;
  return [...piece.querySelectorAll("input, select, textarea")].some((input) => input.type !== "hidden" && input.value !== (input.defaultValue ?? input.value));
}

// Each answer has another token against forged forms.
const readingOf = (piece) => piece.outerHTML.replace(/(name="csrfmiddlewaretoken" value=")[^"]*/g, "$1");
