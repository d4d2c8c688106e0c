// The devices: a table that is painted, or whose rows the server makes where they hold forms.

import { field, part, setAttribute, setField, setTime, setWord, show, syncList } from "../dom.js";
import { OPEN_PHASES, byName, deviceWord, onlineOf } from "../fleet.js";
import { clock, integer } from "../format.js";
import { asTime } from "../times.js";

export function mount(store, { refresh }) {
  const root = part("devices");
  if (!root) return null;
  const list = root.querySelector("[data-list]");
  const template = document.getElementById("device-template");
  const reloads = list.dataset.reload !== undefined;
  return {
    slices: ["devices", "progress"],
    paint() {
      const devices = byName(store);
      const atWork = new Map([...store.progress.values()].filter((item) => OPEN_PHASES.has(item.phase)).map((item) => [item.device_id, item]));
      setField(part("counts") ?? root, "online", String(onlineOf(store)));
      setField(part("counts") ?? root, "total", String(devices.length));
      const fill = (row, device) => paintDevice(row, device, store.words, root.dataset.task, atWork.get(device.device_id));
      if (!reloads) syncList(list, template, devices.slice(0, 50), (device) => device.device_id, fill);
      else if (paintKnown(list, devices, fill)) refresh();
      show(root.querySelector("[data-empty]"), devices.length === 0);
    },
  };
}

/** Paint the rows that the server rendered; say whether some are missing or need other actions. */
function paintKnown(list, devices, fill) {
  const rows = new Map([...list.children].map((row) => [row.dataset.key, row]));
  return devices.map((device) => {
    const row = rows.get(String(device.device_id));
    if (row) fill(row, device);
    const actions = row?.querySelector("[data-actions]");
    return !row || (actions && actions.dataset.state !== device.state);
  }).some(Boolean);
}

function paintDevice(row, device, words, task, work) {
  setField(row, "name", device.name);
  setField(row, "version", device.edge_version);
  // A device's own status is told when it comes and goes; what it does now is told by its part of the round.
  const now = work ? { ...device, activity: work.phase } : { ...device, activity: task ? "idle" : device.activity };
  const cell = field(row, "state");
  setWord(cell.firstElementChild, deviceWord(words, now), cell);
  setAttribute(cell.firstElementChild, "title", device.reason);
  const round = work ? work.round : task ? null : device.round;
  setField(row, "work", round ? `round ${round}` : "");
  setField(row, "examples", integer(device.num_examples[task]));
  const offers = Object.entries(device.num_examples).map(([name, count]) => `${name} (${integer(count)})`);
  setField(row, "tasks", offers.join(", "));
  paintHeard(field(row, "heard"), device.last_heard_at);
}

function paintHeard(cell, iso) {
  if (!iso) return;
  let moment = cell.querySelector("time");
  if (!moment) {
    moment = document.createElement("time");
    moment.dataset.clock = "time";
    cell.replaceChildren(moment);
  }
  setTime(moment, iso, asTime);
}
