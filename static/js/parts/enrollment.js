// Enrolment: as soon as any device comes, or changes, the server is asked what has become of the token that was issued
// here, and who waits for approval; only it knows which device came by which token.

import { part } from "../dom.js";
import { piecesOf } from "../pieces.js";

export function mount(store) {
  const root = part("enrollment");
  if (!root) return null;
  const ask = piecesOf(root, { extra: () => ({ token: root.dataset.token }), pause: 1000 });
  const signatureOf = () => [...store.devices.values()].map((device) => [device.device_id, device.name, device.state, device.presence]).join("\n");
  let before = signatureOf();
  return {
    slices: ["devices"],
    paint() {
      const now = signatureOf();
      if (now === before) return;
      before = now;
      ask();
    },
  };
}
