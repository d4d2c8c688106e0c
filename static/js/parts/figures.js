// The strip of figures: each one that the server measured, or a dash.

import { part, setField } from "../dom.js";
import { onlineOf } from "../fleet.js";
import { change, loss, percent, points, seconds } from "../format.js";
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
      for (const [name, write, writeChange] of [["accuracy", percent, points], ["loss", loss, change]]) {
        setField(root, name, (newest && write(valueOf(newest, name, false))) || "–");
        setField(root, `${name}_note`, onDevices || !newest ? noteOf(newest, name, write) : `version ${newest.version}, ${movedOf(published, name, writeChange)}`);
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

/** Say by how much a metric differs from the round before, where the server measured both. */
function movedOf(published, name, write) {
  const [older, newer] = published.slice(-2).map((line) => valueOf(line, name, false));
  return typeof newer === "number" && typeof older === "number" ? `${write(newer - older)} on the round before` : "on the test split";
}

function noteOf(newest, name, write) {
  if (!newest) return "nothing measured yet";
  const mean = write(valueOf(newest, name, true));
  return mean ? `not evaluated here; on devices ${mean}` : "not evaluated here";
}

function bestNote(best) {
  const here = percent(valueOf(best, "accuracy", false));
  const there = percent(valueOf(best, "accuracy", true));
  if (here) return `accuracy ${here}`;
  return there ? `on devices ${there}` : "";
}
