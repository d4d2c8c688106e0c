// Commands go by REST. A button says what is under way until the run's own status confirms it; nothing is shown as done
// before the server said so, and after ten seconds without a word it says that.

import { part, setText, show } from "../dom.js";
import { gettext } from "../texts.js";
import { notify } from "./notices.js";

const PATIENCE = 10_000;

const COMMANDS = {
  start: { doing: gettext("Starting…"), isDone: (status) => status.state !== "pending" },
  pause: { doing: gettext("Pausing…"), isDone: (status) => status.state !== "running" },
  resume: { doing: gettext("Resuming…"), isDone: (status) => status.state !== "paused" },
  "extend-deadline": { doing: gettext("Extending…"), isDone: (status, before) => status.deadline_at !== before.deadline_at },
  stop: { doing: gettext("Stopping…"), isDone: (status) => status.actions.length === 0 },
};

/** Return what says of a run's status and the one before it that a command was taken. */
export function confirmationOf(command, body) {
  // Stopping after a round is taken note of at once and done later: the next status says so, which has actions of its
  // own; where updates are only counted, they stay the same.
  return body.after_round ? (status, before) => status.actions !== before.actions : COMMANDS[command].isDone;
}

const DRAWN = { start: "start", pause: "pause", resume: "resume", "extend-deadline": "extend_deadline", stop: "stop_now" };

/** A command's control, wherever on the page it stands. */
const controlOf = (command) => document.querySelector(`[data-command="${command}"]`);

/** Return a key that no other request has; crypto.randomUUID is only there over TLS. */
export function idempotencyKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function mount(store) {
  const root = part("commands");
  if (!root || !store.run) return null;
  const commands = new Commands(root, store);
  return { slices: ["runs"], paint: () => commands.paint() };
}

class Commands {
  #pending = null;

  constructor(root, store) {
    Object.assign(this, { root, store });
    for (const form of document.querySelectorAll("form[data-command]")) {
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        const { seconds } = form.elements;
        this.#send(form.dataset.command, form, seconds ? { seconds: Number(seconds.value) } : {});
      });
    }
    this.#dialog();
  }

  paint() {
    const { run } = this.store;
    if (this.#pending && this.#pending.isDone(run, this.#pending.before)) this.#settle();
    for (const [command, action] of Object.entries(DRAWN)) {
      show(controlOf(command), run.actions.includes(action) || this.#pending?.command === command);
    }
    this.#keepFocus();
  }

  /** A button that goes leaves the focus to the one that comes in its place; where none comes, to the page. */
  #keepFocus() {
    const { activeElement } = document;
    if (!this.root.contains(activeElement) || !activeElement.closest("[hidden]")) return;
    const next = this.root.querySelector("form:not([hidden]) button, a:not([hidden])") ?? document.getElementById("main");
    next.focus({ preventScroll: true });
  }

  #dialog() {
    const link = this.root.querySelector('a[data-command="stop"]');
    const dialog = document.getElementById("stop-dialog");
    link.addEventListener("click", (event) => {
      event.preventDefault();
      if (!this.#pending) dialog.showModal();
    });
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
    dialog.querySelector("[data-stop]").addEventListener("submit", (event) => {
      event.preventDefault();
      const afterRound = new FormData(event.target).get("when") !== "now";
      dialog.close();
      this.#send("stop", event.target, { after_round: afterRound });
    });
  }

  async #send(command, form, body) {
    if (this.#pending) return;
    const control = controlOf(command);
    const button = control.querySelector("button") ?? control;
    const word = button.querySelector("[data-word]");
    const before = this.store.run;
    const timer = setTimeout(() => {
      const detail = gettext("“{command}” was sent ten seconds ago and is not confirmed. Look at the connection, then try again.", { command: word.dataset.idle });
      notify({ severity: "error", title: gettext("The server has not answered"), detail });
      this.#settle();
    }, PATIENCE);
    word.dataset.idle = word.textContent;
    const pending = { command, before, isDone: confirmationOf(command, body), button, word, timer };
    this.#pending = pending;
    button.setAttribute("aria-disabled", "true");
    setText(word, COMMANDS[command].doing);
    const refusal = await post(`${this.root.dataset.api}${command}/`, form, body);
    if (refusal) {
      notify({ severity: "error", title: refusal.title, detail: refusal.detail });
      if (this.#pending === pending) this.#settle();
    }
  }

  #settle() {
    if (!this.#pending) return;
    const { button, word, timer } = this.#pending;
    clearTimeout(timer);
    this.#pending = null;
    button.removeAttribute("aria-disabled");
    setText(word, word.dataset.idle);
    this.paint();
  }
}

/** Send a command; return null where it was taken, else why not. */
async function post(address, form, body) {
  try {
    const answer = await fetch(address, {
      method: "POST",
      credentials: "same-origin",
      headers: {
        "Content-Type": "application/json",
        "Idempotency-Key": idempotencyKey(),
        "X-CSRFToken": form.querySelector("[name=csrfmiddlewaretoken]").value,
      },
      body: JSON.stringify(body),
    });
    if (answer.ok) return null;
    const said = (await answer.json().catch(() => null))?.error;
    return { title: said?.message ?? gettext("The server answered {status}", { status: answer.status }), detail: said?.action ?? "" };
  } catch (error) {
    return { title: gettext("The server cannot be reached"), detail: String(error.message ?? error) };
  }
}
