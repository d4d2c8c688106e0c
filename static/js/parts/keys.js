// Keys for those who do not reach for the mouse. They are told in a dialog, act nowhere that one types, and can be
// switched off, since single keys are in the way of some assistive technology (WCAG 2.1.4). Stopping a run has no key.

import { part } from "../dom.js";

const SEQUENCE_MS = 1200;
const GO = { o: "/", r: "/runs/", d: "/devices/", e: "/events/" };
const STORED = "keys";

export function mount() {
  const dialog = part("keys");
  if (!dialog) return null;
  const keys = new Keys(dialog);
  document.addEventListener("keydown", (event) => keys.press(event));
  for (const opener of document.querySelectorAll("[data-open-keys]")) {
    opener.hidden = false;
    opener.addEventListener("click", () => dialog.showModal());
  }
  return {};
}

class Keys {
  #first = null;

  constructor(dialog) {
    this.dialog = dialog;
    const control = dialog.querySelector("[name=keys]");
    control.checked = areOn();
    control.addEventListener("change", () => remember(control.checked));
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  }

  press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target) || !areOn()) return;
    if (document.querySelector("dialog[open]")) return;
    const act = this.#actOf(event.key);
    if (!act) return;
    event.preventDefault();
    act();
  }

  #actOf(key) {
    const first = this.#first;
    this.#first = null;
    if (first !== null && performance.now() - first < SEQUENCE_MS && key in GO) return () => location.assign(GO[key]);
    const acts = {
      g: () => (this.#first = performance.now()),
      "?": () => this.dialog.showModal(),
      "/": () => document.querySelector("[data-open-palette]")?.click(),
      t: () => document.querySelector("[data-theme-switch]")?.click(),
      l: () => part("curve")?.dispatchEvent(new CustomEvent("toggle-choice", { detail: "log" })),
      b: () => part("curve")?.dispatchEvent(new CustomEvent("toggle-choice", { detail: "base" })),
      "[": () => document.querySelector("[data-fold-side]")?.click(),
      P: () => document.querySelector('form:is([data-command="pause"], [data-command="resume"]):not([hidden]) button')?.click(),
    };
    return acts[key];
  }
}

const isTyping = (element) => element.closest("input:not([type=checkbox], [type=radio], [type=range]), textarea, select, [contenteditable]") !== null;

function areOn() {
  try {
    return localStorage.getItem(STORED) !== "off";
  } catch {
    return true; // storage is barred: it cannot have been switched off
  }
}

function remember(on) {
  try {
    localStorage.setItem(STORED, on ? "on" : "off");
  } catch {
    // It holds for this page only, then.
  }
}
