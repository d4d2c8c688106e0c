// The devices beside a run: a table that is painted.

import { field, part, setAttribute, setField, setWord, show, syncList } from "../dom.js";
import { OPEN_PHASES, byName, deviceWord, onlineOf } from "../fleet.js";
import { integer } from "../format.js";
import { gettext } from "../texts.js";
import { paintHeard } from "./device-row.js";

export function mount(store) {
  const root = part("devices");
  if (!root) return null;
  const list = root.querySelector("[data-list]");
  const template = document.getElementById("device-template");
  return {
    slices: ["devices", "progress"],
    paint() {
      const devices = byName(store);
      const atWork = new Map([...store.progress.values()].filter((item) => OPEN_PHASES.has(item.phase)).map((item) => [item.device_id, item]));
      setField(root, "online", String(onlineOf(store)));
      setField(root, "total", String(devices.length));
      const fill = (row, device) => paintDevice(row, device, store.words, root.dataset.task, atWork.get(device.device_id));
      syncList(list, template, devices.slice(0, 50), (device) => device.device_id, fill);
      show(root.querySelector("[data-empty]"), devices.length === 0);
    },
  };
}

function paintDevice(row, device, words, task, work) {
  setField(row, "name", device.name);
  setAttribute(field(row, "name"), "href", `/devices/${device.device_id}/`);
  setField(row, "version", device.edge_version);
  // A device's own status is told when it comes and goes; what it does now is told by its part of the round.
  const now = { ...device, activity: work ? work.phase : "idle" };
  const cell = field(row, "state");
  setWord(cell.firstElementChild, deviceWord(words, now), cell);
  setAttribute(cell.firstElementChild, "title", device.reason);
  setField(row, "work", work ? gettext("round {round}", { round: work.round }) : "");
  setField(row, "examples", integer(device.num_examples[task]));
  paintHeard(field(row, "heard"), device.last_heard_at, "time");
}
