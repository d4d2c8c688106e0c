// Brings a page to life: what the server rendered becomes the store, the socket feeds it, and the parts repaint what has
// changed, once an animation frame. Without this module every page is complete, only not live.

import { mountCommands } from "./commands.js";
import { mountConnection } from "./connection.js";
import { mountCurve } from "./curve.js";
import { part } from "./dom.js";
import { LiveSocket } from "./live-socket.js";
import { mountNotices } from "./notices.js";
import { localizeTimes, mountDevices, mountFeed, mountFigures, mountGuide, mountHeader, mountPending, mountRound, mountRounds, mountRunList } from "./parts.js";
import { mountRibbon } from "./ribbon.js";
import { Store } from "./store.js";

const SIGNED_OUT = 4500;
const readJson = (root, id) => JSON.parse(root.getElementById(id).textContent);

const state = readJson(document, "state");
const store = new Store(state, readJson(document, "words"));

/** Read this page again from the server. */
async function readAgain() {
  const answer = await fetch(location.href, { credentials: "same-origin" });
  if (answer.redirected && new URL(answer.url).pathname !== location.pathname) location.assign(answer.url);
  if (!answer.ok) throw new Error(`the page answered ${answer.status}`);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

/** Take the rows of some parts anew: those with forms in them are the server's to make. */
let refreshing = false;
async function refresh() {
  if (refreshing) return;
  refreshing = true;
  try {
    const fresh = await readAgain();
    for (const name of ["devices", "pending"]) {
      const list = part(name)?.querySelector("[data-list]");
      const newer = fresh.querySelector(`[data-part="${name}"] [data-list]`);
      if (list && newer) list.replaceChildren(...newer.children);
    }
    localizeTimes();
    store.touch("devices");
  } finally {
    setTimeout(() => (refreshing = false), 1000);
  }
}

/** Positions are lost: what is true now comes with the page, once for all of them, and the socket goes on from there. */
let startingAgain = null;
const startAgain = () => (startingAgain ??= readAndStart().finally(() => (startingAgain = null)));
async function readAndStart() {
  const fresh = readJson(await readAgain(), "state");
  store.reset(fresh);
  socket.positions = { ...fresh.positions };
  socket.connect();
}

const socket = new LiveSocket({
  address: `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/ws/dashboard`,
  positions: state.positions,
  onFrame: (frame) => store.apply(frame),
  onState(now) {
    if (now.name === "live") store.skew = Date.parse(now.time) - Date.now();
    if (now.name === "ended" && now.code === SIGNED_OUT) location.assign(`/login/?next=${encodeURIComponent(location.pathname + location.search)}`);
    connection?.second();
  },
  onLost: () => startAgain().catch((error) => store.apply({ event: "error_notification", data: { severity: "error", title: "The page could not be read again", detail: String(error.message) } })),
});

const parts = [
  mountHeader(store),
  mountCommands(store),
  mountRibbon(store),
  mountFigures(store),
  mountCurve(store),
  mountRound(store),
  mountDevices(store, refresh),
  mountRounds(store),
  mountFeed(store),
  mountRunList(store),
  mountGuide(store),
  mountPending(store, refresh),
  mountNotices(store),
].filter(Boolean);
const connection = mountConnection(socket);

let asked = false;
function paint() {
  asked = false;
  const changed = new Set(store.changed);
  store.changed.clear();
  for (const each of parts) if (each.slices.some((slice) => changed.has(slice))) each.paint();
}
store.subscribe(() => {
  if (asked) return;
  asked = true;
  requestAnimationFrame(paint);
});

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", () => navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent));
}
// A form that is on its way is not sent twice.
document.addEventListener("submit", (event) => {
  const button = event.target.querySelector("button[type=submit]");
  if (event.defaultPrevented || !button) return;
  if (button.getAttribute("aria-disabled")) event.preventDefault();
  else button.setAttribute("aria-disabled", "true");
});
addEventListener("pageshow", (event) => event.persisted && location.reload());

setInterval(() => {
  socket.watch();
  connection.second();
  for (const each of parts) each.second?.();
}, 1000);
addEventListener("online", () => socket.wake());
addEventListener("offline", () => socket.loseNetwork());
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && socket.wake());

localizeTimes();
store.touch("runs", "rounds", "progress", "devices");
socket.connect();
