// What pages say of devices: how one is shown, who is there, in which order.

export const OPEN_PHASES = new Set(["assigned", "training", "uploading"]);

/** Return how a device is shown: what bars it, else that it is offline, else what it does. */
export function deviceWord(words, device) {
  if (device.state !== "active") return words.device[device.state] ?? words.device.offline;
  return device.presence === "offline" ? words.device.offline : (words.device[device.activity] ?? words.device.idle);
}

export const isOnline = (device) => device.presence === "online";

export const onlineOf = (store) => [...store.devices.values()].filter(isOnline).length;

export const byName = (store) => [...store.devices.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
