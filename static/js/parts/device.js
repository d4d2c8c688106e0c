// The page of a device: what it is and does changes at once; its history, rounds and charts are made by the server anew.

import { field, part, setField, setWord } from "../dom.js";
import { deviceWord } from "../fleet.js";
import { piecesOf } from "../pieces.js";
import { deviceNow, openWork } from "../work.js";
import { paintWork } from "./device-row.js";

export function mount(store) {
  const root = part("device");
  if (!root) return null;
  const id = Number(root.dataset.device);
  const ask = piecesOf(root);
  let known = store.devices.get(id);
  let phase = store.work.get(id)?.phase;
  return {
    slices: ["devices", "work"],
    paint() {
      const device = store.devices.get(id);
      if (!device) return;
      const now = deviceNow(store, device);
      setField(root, "name", now.name);
      setWord(field(root, "state"), deviceWord(store.words, now));
      paintWork(root, openWork(store, id));
      const reached = store.work.get(id)?.phase;
      if (device === known && reached === phase) return;
      [known, phase] = [device, reached];
      ask();
    },
  };
}
