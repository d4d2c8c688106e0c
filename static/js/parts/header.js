// The head of a run: its state, why, and when it began.

import { field, part, setField, setTime, setWord, show } from "../dom.js";
import { gettext } from "../texts.js";
import { asTime } from "../times.js";

export function mount(store) {
  const root = part("header");
  if (!root || !store.run) return null;
  return {
    slices: ["runs"],
    paint() {
      const { run, words } = store;
      setWord(field(root, "chip"), words.run[run.state]);
      setField(root, "reason", run.reason);
      show(root.querySelector("[data-throw]"), run.actions.length === 0);
      const started = field(root, "started");
      if (run.started_at && !started.querySelector("time")) {
        const moment = document.createElement("time");
        moment.dataset.clock = "date";
        const [before, after] = gettext("Started {moment}").split("{moment}");
        started.replaceChildren(before, moment, after);
        setTime(moment, run.started_at, asTime);
      }
    },
  };
}
