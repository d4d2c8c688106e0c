// The pill and the bar: how the connection is, when the next attempt comes, and how old the data are.

import { field, part, setAttribute, setField, setText, show } from "../dom.js";
import { clock, countdown } from "../format.js";

const WORDS = {
  connecting: () => "Connecting",
  live: () => "Live",
  waiting: (state) => `Reconnecting in ${countdown(state.retryAt - Date.now())}`,
  offline: () => "Offline",
  ended: (state) => (state.code === 4503 ? "Not allowed" : state.code === 4500 ? "Signed out" : "Stopped"),
};
const GRACE = 1500;
const MEASURE_EVERY = 240_000;
const AGED = 60_000;

/** Say how long the way to the server and back took, and how long ago that was measured where it is not new. */
export function wayOf(roundTrip, now) {
  if (!roundTrip) return "";
  const age = now - roundTrip.at;
  return `${Math.max(1, Math.round(roundTrip.ms))} ms${age < AGED ? "" : `, ${Math.round(age / AGED)} min ago`}`;
}

export function mount(store, { socket }) {
  const pill = part("pill");
  const bar = part("bar");
  let wasLive = false;
  let downSince = null;
  pill.addEventListener("click", () => socket.state.name !== "live" && socket.connect());
  bar.querySelector("[data-retry]").addEventListener("click", () => socket.connect());
  /** The way there and back is measured now and then while somebody looks; its age is told with it. */
  function measureNow(live) {
    const { roundTrip } = socket;
    const isDue = !roundTrip || Date.now() - roundTrip.at > MEASURE_EVERY;
    if (live && isDue && document.visibilityState === "visible") socket.measure();
    setField(pill, "way", live ? wayOf(roundTrip, Date.now()) : "");
    if (live && roundTrip) setAttribute(pill, "title", `There and back in ${wayOf(roundTrip, Date.now())}, measured at ${clock(new Date(roundTrip.at).toISOString())}`);
  }

  return {
    second() {
      const { state } = socket;
      const live = state.name === "live";
      if (live) [wasLive, downSince] = [true, null];
      else downSince ??= Date.now();
      pill.dataset.state = state.name;
      setText(field(pill, "word"), WORDS[state.name](state));
      measureNow(live);
      // A blink of the network is not worth a bar.
      const stale = !live && (wasLive || state.name !== "connecting") && Date.now() - downSince > GRACE;
      show(bar, stale);
      document.body.classList.toggle("stale", stale);
      if (stale) setField(bar, "age", `Data from ${clock(new Date(socket.lastHeard).toISOString())}.`);
    },
  };
}
