// The pill and the bar: how the connection is, when the next attempt comes, and how old the data are.

import { field, part, setField, setText, show } from "../dom.js";
import { clock, countdown } from "../format.js";

const WORDS = {
  connecting: () => "Connecting",
  live: () => "Live",
  waiting: (state) => `Reconnecting in ${countdown(state.retryAt - Date.now())}`,
  offline: () => "Offline",
  ended: (state) => (state.code === 4503 ? "Not allowed" : state.code === 4500 ? "Signed out" : "Stopped"),
};
const GRACE = 1500;

export function mount(store, { socket }) {
  const pill = part("pill");
  const bar = part("bar");
  let wasLive = false;
  let downSince = null;
  pill.addEventListener("click", () => socket.state.name !== "live" && socket.connect());
  bar.querySelector("[data-retry]").addEventListener("click", () => socket.connect());
  return {
    second() {
      const { state } = socket;
      const live = state.name === "live";
      if (live) [wasLive, downSince] = [true, null];
      else downSince ??= Date.now();
      pill.dataset.state = state.name;
      setText(field(pill, "word"), WORDS[state.name](state));
      // A blink of the network is not worth a bar.
      const stale = !live && (wasLive || state.name !== "connecting") && Date.now() - downSince > GRACE;
      show(bar, stale);
      document.body.classList.toggle("stale", stale);
      if (stale) setField(bar, "age", `Data from ${clock(new Date(socket.lastHeard).toISOString())}.`);
    },
  };
}
