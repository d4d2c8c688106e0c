// The pill and the bar: how the connection is, when the next attempt comes, and how old the data are.

import { field, part, setAttribute, setField, setText, show } from "../dom.js";
import { clock, countdown } from "../format.js";
import { gettext } from "../texts.js";

const WORDS = {
  connecting: () => gettext("Connecting"),
  live: () => gettext("Live"),
  waiting: (state) => gettext("Reconnecting in {time}", { time: countdown(state.retryAt - Date.now()) }),
  offline: () => gettext("Offline"),
  ended: ({ code }) => (code === 4503 ? gettext("Not allowed") : code === 4500 ? gettext("Signed out") : gettext("Stopped")),
};
const GRACE = 1500;
const MEASURE_EVERY = 240_000;
const AGED = 60_000;

/** Say how long the way to the server and back took, and how long ago that was measured where it is not new. */
export function wayOf(roundTrip, now) {
  if (!roundTrip) return "";
  const age = now - roundTrip.at;
  const way = `${Math.max(1, Math.round(roundTrip.ms))} ms`;
  return age < AGED ? way : gettext("{way}, {minutes} min ago", { way, minutes: Math.round(age / AGED) });
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
    if (!live || !roundTrip) return;
    const places = { way: wayOf(roundTrip, Date.now()), time: clock(new Date(roundTrip.at).toISOString()) };
    setAttribute(pill, "title", gettext("There and back in {way}, measured at {time}", places));
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
      if (stale) setField(bar, "age", gettext("Data from {time}.", { time: clock(new Date(socket.lastHeard).toISOString()) }));
    },
  };
}
