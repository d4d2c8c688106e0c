// The palette: type a few letters of a page, a command, a run or a device, and go there. What the server knows is asked
// for once one stops typing.

import { setAttribute, show } from "./dom.js";
import { gettext, within } from "./texts.js";

const PAUSE_MS = 150;
const MOST = 8;

/** Return those entries that have all words of a text in them, best first: a name that begins with it comes first. */
export function matching(entries, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const rank = ({ title }) => (title.toLowerCase().startsWith(words[0] ?? "") ? 0 : 1);
  return entries.filter(({ title, kind }) => words.every((word) => `${title} ${kind}`.toLowerCase().includes(word))).sort((a, b) => rank(a) - rank(b));
}

export class Palette {
  #entries = [];
  #chosen = 0;
  #asked = 0;

  constructor(dialog, words) {
    this.dialog = dialog;
    this.words = words;
    this.input = dialog.querySelector("input");
    this.list = dialog.querySelector("[role=listbox]");
    this.input.addEventListener("input", () => this.search());
    this.input.addEventListener("keydown", (event) => this.#key(event));
    dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#go(this.#chosen);
    });
    this.list.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      if (row) this.#go([...this.list.children].indexOf(row));
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  /** Show what is known at once, and what the server finds when it has answered, unless one has typed on by then. */
  async search() {
    const text = this.input.value.trim();
    this.#asked += 1;
    const asked = this.#asked;
    const known = matching(onThisPage(), text);
    this.#show(known);
    if (!text) return;
    await new Promise((done) => setTimeout(done, PAUSE_MS));
    if (asked !== this.#asked) return;
    const found = await Promise.all([ask("runs", text, (run) => runEntry(run, this.words)), ask("devices", text, deviceEntry)]);
    if (asked === this.#asked) this.#show([...known, ...found.flat()]);
  }

  #show(entries) {
    this.#entries = entries.slice(0, 2 * MOST);
    this.#chosen = 0;
    this.list.replaceChildren(...this.#entries.map(option));
    show(this.dialog.querySelector("[data-empty]"), !this.#entries.length);
    this.#mark();
  }

  #mark() {
    [...this.list.children].forEach((row, index) => setAttribute(row, "aria-selected", index === this.#chosen));
    const row = this.list.children[this.#chosen];
    setAttribute(this.input, "aria-activedescendant", row?.id ?? "");
    row?.scrollIntoView({ block: "nearest" });
  }

  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !this.#entries.length) return;
    event.preventDefault();
    this.#chosen = (this.#chosen + step + this.#entries.length) % this.#entries.length;
    this.#mark();
  }

  #go(index) {
    const entry = this.#entries[index];
    if (!entry) return;
    this.dialog.close();
    entry.act();
  }
}

/** The pages of the navigation, and the commands that this page draws for its viewer. */
function onThisPage() {
  const pages = [...document.querySelectorAll(".side .links a")].map((link) => ({ title: link.textContent.trim(), kind: gettext("page"), act: () => location.assign(link.href) }));
  const commands = [...document.querySelectorAll("form[data-command]:not([hidden]) button, a[data-command]:not([hidden]), [data-theme-switch]")];
  return [...pages, ...commands.map((control) => ({ title: control.textContent.trim(), kind: gettext("command"), act: () => control.click() }))];
}

const runEntry = (run, words) => ({ title: `${run.label} ${run.name}`, kind: gettext("run, {state}", { state: within(words.run[run.state].word) }), act: () => location.assign(`/runs/${run.id}/`) });
const deviceEntry = (device) => ({ title: device.name, kind: gettext("device"), act: () => location.assign(`/devices/${device.id}/`) });

async function ask(what, text, entryOf) {
  const answer = await fetch(`/api/v1/${what}/?search=${encodeURIComponent(text)}&page_size=${MOST}`, { credentials: "same-origin" });
  if (!answer.ok) return [{ title: gettext("The server answered {status}", { status: answer.status }), kind: gettext("error"), act: () => {} }];
  return (await answer.json()).results.slice(0, MOST).map(entryOf);
}

function option(entry, index) {
  const row = document.createElement("li");
  row.id = `palette-${index}`;
  row.setAttribute("role", "option");
  const kind = document.createElement("small");
  kind.textContent = entry.kind;
  row.append(entry.title, " ", kind);
  return row;
}
