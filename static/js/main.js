// Brings a page to life: what the server rendered becomes the store, the socket feeds it, and the parts repaint what has
// changed, once an animation frame. Without this module every page is complete, only not live.

import { part } from "./dom.js";
import { writeWith } from "./format.js";
import { LiveSocket, backOff } from "./live-socket.js";
import { Store } from "./store.js";
import { Tap } from "./tap.js";
import { gettext } from "./texts.js";
import { localizeTimes } from "./times.js";

/** The parts that a page may have, by the name in `data-part`; a page loads the modules of those that it has. */
const PARTS = {
  commands: () => import("./parts/commands.js"),
  compare: () => import("./parts/compare.js"),
  curve: () => import("./parts/curve.js"),
  "device-list": () => import("./parts/device-list.js"),
  device: () => import("./parts/device.js"),
  devices: () => import("./parts/devices.js"),
  enrollment: () => import("./parts/enrollment.js"),
  events: () => import("./parts/events.js"),
  feed: () => import("./parts/feed.js"),
  figures: () => import("./parts/figures.js"),
  guide: () => import("./parts/guide.js"),
  header: () => import("./parts/header.js"),
  health: () => import("./parts/health.js"),
  "heat-map": () => import("./parts/heat-map.js"),
  inspector: () => import("./parts/inspector.js"),
  keys: () => import("./parts/keys.js"),
  models: () => import("./parts/models.js"),
  "new-run": () => import("./parts/new-run.js"),
  notices: () => import("./parts/notices.js"),
  palette: () => import("./parts/palette.js"),
  pill: () => import("./parts/connection.js"),
  ribbon: () => import("./parts/ribbon.js"),
  "round-detail": () => import("./parts/round-detail.js"),
  round: () => import("./parts/round.js"),
  "rounds-table": () => import("./parts/rounds-table.js"),
  rounds: () => import("./parts/rounds.js"),
  "run-events": () => import("./parts/run-events.js"),
  runs: () => import("./parts/runs.js"),
};
const SIGNED_OUT = 4500;
const SILENT_FAILURES = 3; // over before anybody could have read of them
const readJson = (root, id) => JSON.parse(root.getElementById(id).textContent);

const state = readJson(document, "state");
const words = readJson(document, "words");
const store = new Store(state, words);
writeWith(words.numbers);

/** Read this page again from the server. */
async function readAgain() {
  const answer = await fetch(location.href, { credentials: "same-origin" });
  if (answer.redirected && new URL(answer.url).pathname !== location.pathname) location.assign(answer.url);
  if (!answer.ok) throw new Error(gettext("the page answered {status}", { status: answer.status }));
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

/** Read the page's state until the server answers with it: what was told meanwhile is told by nothing else. */
async function readState(attempt = 0) {
  try {
    return readJson(await readAgain(), "state");
  } catch (error) {
    if (attempt === SILENT_FAILURES) store.apply({ event: "error_notification", data: { severity: "error", title: gettext("The page could not be read again"), detail: String(error.message) } });
    await new Promise((resolve) => setTimeout(resolve, backOff(attempt)));
    return readState(attempt + 1);
  }
}

/** Positions are lost: what is true now comes with the page, once for all of them, and the socket goes on from there. */
let startingAgain = null;
const startAgain = () => (startingAgain ??= readAndStart().finally(() => (startingAgain = null)));
async function readAndStart() {
  const fresh = await readState();
  store.reset(fresh);
  socket.positions = { ...fresh.positions };
  socket.connect();
}

/** What parts may hear beside the store: each event in its order, and each frame as it crosses the wire. */
const frames = new Tap();
const wire = new Tap();

const socket = new LiveSocket({
  address: `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/ws/dashboard`,
  positions: state.positions,
  onFrame(frame) {
    store.apply(frame);
    frames.tell(frame);
  },
  onWire: (direction, text) => wire.tell(direction, text, Date.now()),
  onState(now) {
    if (now.name === "live") store.skew = Date.parse(now.time) - Date.now();
    if (now.name === "ended" && now.code === SIGNED_OUT) location.assign(`/login/?next=${encodeURIComponent(location.pathname + location.search)}`);
    everySecond();
  },
  onLost: startAgain,
});

/** What the page has: each paints when one of its `slices` has changed, and does what is due every `second`. */
let parts = null;
const loaded = Object.entries(PARTS).filter(([name]) => part(name)).map(([, load]) => load());
const everySecond = () => parts?.forEach((each) => each.second?.());

let asked = false;
function paint() {
  asked = false;
  if (!parts) return; // what has changed is painted once they are there
  const changed = new Set(store.changed);
  store.changed.clear();
  for (const each of parts) if (each.slices?.some((slice) => changed.has(slice))) each.paint();
}
store.subscribe(() => {
  if (asked) return;
  asked = true;
  requestAnimationFrame(paint);
});

for (const button of document.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
});
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
  everySecond();
}, 1000);
addEventListener("online", () => socket.wake());
addEventListener("offline", () => socket.loseNetwork());
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && socket.wake());

localizeTimes();
socket.connect();
parts = (await Promise.all(loaded)).map(({ mount }) => mount(store, { socket, readAgain, frames, wire })).filter(Boolean);
frames.open();
wire.open();
everySecond();
store.touch("runs", "rounds", "progress", "devices");
