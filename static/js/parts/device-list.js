// The list of devices: states, work and the mosaic change in place, and no row moves; what only the server can say, such as
// how many there are of each kind on all pages, is asked of it. Where the list would be another one, a line says so.

import { field, part, setAttribute, setField, setText, setTone, setWord, show } from "../dom.js";
import { deviceWord } from "../fleet.js";
import { paintHeard, paintWork } from "./device-row.js";
import { piecesOf } from "../pieces.js";
import { gettext, ngettext } from "../texts.js";
import { deviceNow, openWork } from "../work.js";

export function mount(store) {
  const root = part("device-list");
  if (!root) return null;
  const rows = new Map([...root.querySelectorAll("[data-key]")].map((row) => [Number(row.dataset.key), row]));
  const squares = new Map([...root.querySelectorAll("[data-square]")].map((square) => [Number(square.dataset.square), square]));
  const ask = piecesOf(root, { then: (fresh) => tellOfOthers(root, fresh) });
  let before = signatureOf(store);
  return {
    slices: ["devices", "work"],
    paint() {
      for (const [id, row] of rows) if (store.devices.has(id)) paintRow(store, row, store.devices.get(id));
      const now = signatureOf(store);
      if (now === before) return;
      before = now;
      for (const [id, square] of squares) if (store.devices.has(id)) paintSquare(store, square, store.devices.get(id));
      ask();
    },
  };
}

/** Return a text that changes with whatever counts and rows depend on, progress aside. */
function signatureOf(store) {
  const each = (device) => [device.device_id, device.name, device.state, device.reason, device.presence, device.edge_version, device.tags, store.work.get(device.device_id)?.phase];
  return [...store.devices.values()].map(each).join("\n");
}

function paintRow(store, row, known) {
  const device = deviceNow(store, known);
  setField(row, "name", device.name);
  const cell = field(row, "state");
  const word = cell.querySelector(".state");
  setWord(word, deviceWord(store.words, device), cell);
  setAttribute(word, "title", device.reason);
  paintWork(row, openWork(store, device.device_id));
  paintHeard(field(row, "heard"), device.last_heard_at);
}

function paintSquare(store, square, known) {
  const device = deviceNow(store, known);
  const word = deviceWord(store.words, device);
  setTone(square, word.tone);
  setText(square.firstElementChild, `${device.name}: ${word.word}`);
}

/** Say how the list that the server would give now differs from the one that is shown. */
function tellOfOthers(root, fresh) {
  const other = fresh.querySelector('[data-part="device-list"]');
  const text = differenceOf(root, other);
  show(field(root, "news"), text !== "");
  setField(root, "news_text", text);
}

const keysOf = (list) => [...list.querySelectorAll("[data-key]")].map((row) => row.dataset.key).join();

export function differenceOf(shown, fresh) {
  const more = Number(fresh.dataset.found) - Number(shown.dataset.found);
  if (more > 0) return ngettext("{count} more device matches.", "{count} more devices match.", more);
  if (more < 0) return ngettext("{count} device no longer matches.", "{count} devices no longer match.", -more);
  return keysOf(shown) === keysOf(fresh) ? "" : gettext("The order is another one now.");
}
