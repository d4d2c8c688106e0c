// The strip of figures: each one that the server measured, or a dash.

import { part, setField } from "../dom.js";
import { onlineOf } from "../fleet.js";
import { loss, percent, seconds } from "../format.js";
import { inOrder, isMeasuredOnDevices, medianSeconds, valueOf } from "../series.js";

export function mount(store) {
  const root = part("figures");
  if (!root || !store.run) return null;
  return {
    slices: ["runs", "rounds", "devices"],
    paint() {
      const rounds = inOrder(store.rounds);
      const published = rounds.filter((line) => line.version !== null);
      const newest = published.at(-1);
      const onDevices = isMeasuredOnDevices(rounds);
      for (const [name, write] of [["accuracy", percent], ["loss", loss]]) {
        setField(root, name, (newest && write(valueOf(newest, name, false))) || "–");
        setField(root, `${name}_note`, noteOf(newest, name, write, onDevices));
      }
      setField(root, "online", String(onlineOf(store)));
      setField(root, "devices", String(store.devices.size));
      setField(root, "devices_note", `${store.run.selected} in this round`);
      setField(root, "round_time", seconds(medianSeconds(rounds)) || "–");
      const best = rounds.find((line) => line.is_best);
      setField(root, "best", best ? `v${best.version}` : "–");
      setField(root, "best_note", best ? bestNote(best) : "none yet");
    },
  };
}

function noteOf(newest, name, write, onDevices) {
  if (!newest) return "nothing measured yet";
  if (!onDevices) return `version ${newest.version}, on the test split`;
  const mean = write(valueOf(newest, name, true));
  return mean ? `not evaluated here; on devices ${mean}` : "not evaluated here";
}

function bestNote(best) {
  const here = percent(valueOf(best, "accuracy", false));
  const there = percent(valueOf(best, "accuracy", true));
  if (here) return `accuracy ${here}`;
  return there ? `on devices ${there}` : "";
}
