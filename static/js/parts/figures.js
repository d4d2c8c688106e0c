// The strip of figures: each one that the server measured, or a dash.

import { part, setField } from "../dom.js";
import { onlineOf } from "../fleet.js";
import { change, loss, named, percent, points, seconds } from "../format.js";
import { inOrder, isMeasuredOnDevices, medianSeconds, valueOf } from "../series.js";
import { gettext } from "../texts.js";

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
        setField(root, `${name}_note`, onDevices || !newest ? noteOf(newest, name, write) : movedOf(published, name, writeChange));
      }
      setField(root, "online", String(onlineOf(store)));
      setField(root, "devices", String(store.devices.size));
      setField(root, "devices_note", gettext("{selected} in this round", { selected: store.run.selected }));
      const { earlierFacts: before } = store;
      // Of a very long run only the server has all durations: its median stays as it was when the page was read.
      setField(root, "round_time", seconds(before ? before.median_seconds : medianSeconds(rounds)) || "–");
      const best = rounds.find((line) => line.is_best) ?? before?.best_line;
      setField(root, "best", best ? `v${best.version}` : "–");
      setField(root, "best_note", best ? bestNote(best) : gettext("none yet"));
    },
  };
}

/** Say by how much a metric differs from the round before, where the server measured both. */
function movedOf(published, name, write) {
  const { version } = published.at(-1);
  const [older, newer] = published.slice(-2).map((line) => valueOf(line, name, false));
  if (typeof newer !== "number" || typeof older !== "number") return gettext("version {version}, on the test split", { version });
  return gettext("version {version}, {change} on the round before", { version, change: write(newer - older) });
}

function noteOf(newest, name, write) {
  if (!newest) return gettext("nothing measured yet");
  const value = write(valueOf(newest, name, true));
  return value ? gettext("not evaluated here; on devices {value}", { value }) : gettext("not evaluated here");
}

function bestNote(best) {
  const here = percent(valueOf(best, "accuracy", false));
  const there = percent(valueOf(best, "accuracy", true));
  if (here) return named("accuracy", here);
  return there ? gettext("on devices {value}", { value: there }) : "";
}
