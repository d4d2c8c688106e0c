// Notices: errors stay until they are dismissed, others leave after six seconds; equal ones become one with a count.

import { field, part, setIcon, setText, setTone } from "../dom.js";

const TONES = { error: ["bad", "circle-alert"], warning: ["warn", "triangle-alert"], info: ["plain", "info"] };
const MOST = 4;
const SECONDS = 6;

export function notify({ severity, title, detail, count = 1 }) {
  const root = part("notices");
  const template = document.getElementById("notice-template");
  if (!root || !template) return;
  const same = [...root.children].find((notice) => notice.dataset.title === title);
  if (same) {
    same.dataset.count = String(Number(same.dataset.count) + count);
    setText(field(same, "title"), `${title} (×${same.dataset.count})`);
    setText(field(same, "detail"), detail);
    return;
  }
  const notice = template.content.firstElementChild.cloneNode(true);
  const [tone, icon] = TONES[severity] ?? TONES.error;
  notice.dataset.title = title;
  notice.dataset.count = "1";
  setTone(notice, tone);
  setIcon(notice, icon);
  setText(field(notice, "title"), title);
  setText(field(notice, "detail"), detail);
  notice.querySelector("[data-dismiss]").addEventListener("click", () => notice.remove());
  root.append(notice);
  if (severity !== "error") setTimeout(() => notice.remove(), SECONDS * 1000);
  while (root.children.length > MOST) root.firstElementChild.remove();
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
      const measured = typeof accuracy === "number" ? `, accuracy ${(accuracy * 100).toFixed(1)} per cent` : "";
      setText(announcer, `Round ${result.round} completed${measured}`);
    },
  };
}
