// What each device does: its newest part in a round, of whatever run; for pages that are about devices, not about one run.

const PAGES = new Set(["devices", "device"]);
const OVER = new Set(["accepted", "rejected", "failed", "expired", "cancelled", "late"]);

/** Return what the devices did when the page was rendered, by device; null for pages that are not about devices. */
export const workOf = (state) => (PAGES.has(state.page) ? new Map(state.progress.map((part) => [part.device_id, part])) : null);

/** Take in what an event tells of devices at work; say whether something changed. */
export function takeWork(work, data, frame) {
  const { run_id, round } = data;
  if (data.devices?.length) return data.devices.map((tick) => take(work, { run_id, round, ...tick }, true)).some(Boolean);
  if (data.assignment_id === null || data.assignment_id === undefined) return false;
  return take(work, data, Boolean(frame.key));
}

/** Forget what devices did that, as a snapshot has it, do nothing now; take in what the others do. */
export function takeSnapshot(work, { devices, progress }) {
  for (const device of devices) if (device.activity === "idle") work.delete(device.device_id);
  for (const part of progress) take(work, part, false);
}

function take(work, part, isTick) {
  const known = work.get(part.device_id);
  const same = known?.assignment_id === part.assignment_id;
  if (known && known.assignment_id > part.assignment_id) return false;
  // A tick may come after the event that ended what it tells of, and after a newer one.
  if (isTick && same && (OVER.has(known.phase) || (known.number ?? -1) >= part.number)) return false;
  work.set(part.device_id, { ...part, number: part.number ?? (same ? known.number : undefined) });
  return true;
}

/** Return a device as it is now: what it does is told by its part of a round, where one was told. */
export function deviceNow(store, device) {
  const part = store.work?.get(device.device_id);
  if (!part) return device;
  return { ...device, activity: OVER.has(part.phase) ? "idle" : part.phase };
}

/** Return the part that a device is at work on; undefined where there is none. */
export function openWork(store, deviceId) {
  const part = store.work?.get(deviceId);
  return part && !OVER.has(part.phase) ? part : undefined;
}
