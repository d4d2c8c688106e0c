// The inspector: what crosses the wire of this page's own socket, newest first. It stands still while somebody reads in it.

import { field, part, setAttribute, setField, setIcon, setText, show, syncList } from "../dom.js";
import { bytes, integer, locale } from "../format.js";
import { FrameLog, asJsonLines, pretty } from "../frame-log.js";
import { gettext } from "../texts.js";
import { idempotencyKey } from "./commands.js";
import { notify } from "./notices.js";

const SHOWN = 200;
const PAUSE_MS = 250;
const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" });

export function mount(store, { wire }) {
  const root = part("inspector");
  if (!root) return null;
  const inspector = new Inspector(root);
  wire.hear((direction, text, at) => inspector.take(direction, text, at));
  sendTestEvents(root);
  startDemos(root);
  show(root.querySelector("[data-explained]"), false);
  show(root.querySelector("[data-live]"), true);
  return { second: () => inspector.paintSoon() };
}

class Inspector {
  #log = new FrameLog();
  #most = SHOWN;
  #isAsked = false;
  #unseen = 0;

  constructor(root) {
    this.root = root;
    this.list = root.querySelector("[data-list]");
    this.template = document.getElementById("frame-template");
    this.event = root.querySelector("[data-event]");
    this.text = root.querySelector("[data-text]");
    this.pause = root.querySelector("[data-pause]");
    for (const control of [this.event, this.text]) control.addEventListener("input", () => this.paint());
    this.pause.addEventListener("click", () => this.#pauseOrGoOn());
    root.querySelector("[data-clear]").addEventListener("click", () => {
      this.#log.clear();
      this.#most = SHOWN;
      this.paint();
    });
    const copyAll = root.querySelector("[data-copy-all]");
    copyAll.addEventListener("click", () => copy(copyAll, asJsonLines(this.#matching())));
    root.querySelector("[data-more]").addEventListener("click", () => {
      this.#most += SHOWN;
      this.paint();
    });
    for (const end of ["pointerleave", "focusout"]) this.list.addEventListener(end, () => this.paintSoon());
    this.paint();
  }

  take(direction, text, at) {
    this.#log.add(direction, text, at);
    this.#unseen += 1;
    this.paintSoon();
  }

  paintSoon() {
    if (this.#isAsked) return;
    this.#isAsked = true;
    setTimeout(() => {
      this.#isAsked = false;
      // What moves under a pointer or the keyboard's focus cannot be read: it waits until they leave.
      if (this.list.matches(":hover, :focus-within")) this.#count(this.#matching());
      else this.paint();
    }, PAUSE_MS);
  }

  paint() {
    const matching = this.#matching();
    this.#unseen = 0;
    syncList(this.list, this.template, matching.slice(0, this.#most), (frame) => frame.id, paintFrame);
    show(this.root.querySelector("[data-more]"), matching.length > this.#most);
    this.#offerEvents();
    this.#count(matching);
  }

  #matching() {
    return this.#log.matching(this.event.value, this.text.value.trim());
  }

  #count(matching) {
    const log = this.#log;
    const parts = [gettext("{shown} of {all} frames", { shown: integer(matching.length), all: integer(log.frames.length) })];
    if (matching.length > this.#most) parts.push(gettext("the newest {count} are shown", { count: integer(this.#most) }));
    if (log.dropped) parts.push(gettext("{count} older ones were dropped: {most} are kept", { count: integer(log.dropped), most: integer(log.most) }));
    if (log.paused) parts.push(gettext("paused, {count} came meanwhile and are not kept", { count: integer(log.missed) }));
    else if (this.#unseen) parts.push(gettext("{count} newer wait until you leave the list", { count: integer(this.#unseen) }));
    setField(this.root, "count", `${parts.join("; ")}.`);
  }

  #pauseOrGoOn() {
    const { paused } = this.#log;
    if (paused) this.#log.resume();
    else this.#log.pause();
    setAttribute(this.pause, "aria-pressed", !paused);
    setIcon(this.pause, paused ? "pause" : "play");
    setText(this.pause.querySelector("[data-word]"), paused ? gettext("Pause") : gettext("Go on"));
    this.paint();
  }

  #offerEvents() {
    const offered = [...this.event.options].slice(1).map((option) => option.value);
    for (const name of this.#log.events()) {
      if (!offered.includes(name)) this.event.add(new Option(name, name));
    }
  }
}

function paintFrame(row, frame) {
  if (field(row, "event").textContent) return; // a frame does not change
  setField(row, "time", clock.format(frame.at));
  field(row, "time").dateTime = new Date(frame.at).toISOString();
  setField(row, "direction", frame.direction === "in" ? gettext("← in") : gettext("→ out"));
  setField(row, "event", frame.event || "?");
  setField(row, "place", frame.place);
  setField(row, "size", bytes(frame.size));
  row.addEventListener("toggle", () => row.open && setField(row, "json", pretty(frame.text)));
  const button = row.querySelector("[data-copy-one]");
  button.addEventListener("click", () => copy(button, asJsonLines([frame])));
}

/** Copy a text; the button says that it was done, or that the browser does not let it. */
async function copy(button, text) {
  const word = button.querySelector("[data-word]");
  word.dataset.idle ??= word.textContent;
  try {
    await navigator.clipboard.writeText(text);
    setText(word, gettext("Copied"));
  } catch {
    setText(word, gettext("The browser does not allow it"));
  }
  setTimeout(() => setText(word, word.dataset.idle), 2000);
}

function sendTestEvents(root) {
  const form = root.querySelector("[data-test-event]");
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const headers = { "Idempotency-Key": idempotencyKey(), "X-CSRFToken": form.querySelector("[name=csrfmiddlewaretoken]").value };
      const answer = await fetch(root.dataset.api, { method: "POST", credentials: "same-origin", headers });
      if (answer.ok) return; // the event itself says that it was sent
      const said = (await answer.json().catch(() => null))?.error;
      notify({ severity: "error", title: said?.message ?? gettext("The server answered {status}", { status: answer.status }), detail: said?.action ?? "" });
    } catch (error) {
      notify({ severity: "error", title: gettext("The server cannot be reached"), detail: String(error.message ?? error) });
    }
  });
}

/** Start the demo run from here, and stay: its frames are what one wants to see. */
function startDemos(root) {
  const form = root.querySelector("[data-start-demo]");
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const answer = await fetch(form.action, { method: "POST", credentials: "same-origin", body: new FormData(form) });
      if (answer.ok && /^\/runs\/\d+\/$/.test(new URL(answer.url).pathname)) return; // the run's own events say the rest
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const said = page.querySelector(".message")?.textContent.trim();
      notify({ severity: "error", title: said || gettext("The server answered {status}", { status: answer.status }), detail: "" });
    } catch (error) {
      notify({ severity: "error", title: gettext("The server cannot be reached"), detail: String(error.message ?? error) });
    }
  });
}
