// What is told of a server as a value that changes: whether one is connected, and the newest of each kind of event. It is
// what React's useSyncExternalStore takes, and any other page can subscribe to it. It connects at the first subscriber.

import { LiveSocket } from "./live-socket.js";

const FIELDS = {
  fl_status_update: "flStatus",
  training_progress: "trainingProgress",
  model_aggregation: "modelAggregation",
  device_status: "deviceStatus",
  error_notification: "errorNotification",
};
const NOTHING = { isConnected: false, flStatus: null, trainingProgress: null, modelAggregation: null, deviceStatus: null, errorNotification: null };

/** Look after a socket: once a second, and at once when the page wakes. Returns how to leave off. */
function tend(socket, page) {
  const listeners = {
    online: () => socket.wake(),
    offline: () => socket.loseNetwork(),
    visibilitychange: () => page.document?.visibilityState === "visible" && socket.wake(),
  };
  const timer = setInterval(() => socket.watch(), 1000);
  // The page's last event bubbles up to it from the document.
  for (const [name, listener] of Object.entries(listeners)) page.addEventListener?.(name, listener);
  return () => {
    clearInterval(timer);
    for (const [name, listener] of Object.entries(listeners)) page.removeEventListener?.(name, listener);
  };
}

/**
 * Follow a server.
 * @param {string} address of the socket, such as wss://learning.example.org/ws/dashboard
 * @param {object} [options] for tests: `page` instead of the window, and what LiveSocket takes (open, now, later)
 * @returns {{subscribe: (listener: () => void) => () => void, current: () => object, clearError: () => void, reconnect: () => void}}
 */
export function liveState(address, { page = globalThis, ...options } = {}) {
  let state = NOTHING;
  let leave = null;
  const listeners = new Set();
  const change = (news) => {
    state = { ...state, ...news };
    for (const listener of listeners) listener();
  };

  function onFrame({ event, data }) {
    if (event === "snapshot") {
      // Newest first, as the server tells them.
      if (data.runs.length) change({ flStatus: data.runs[0] });
      if (data.models.length) change({ modelAggregation: data.models[0] });
    } else if (FIELDS[event]) {
      change({ [FIELDS[event]]: data });
    }
  }

  const socket = new LiveSocket({
    address,
    positions: {},
    onFrame,
    onState: ({ name }) => change({ isConnected: name === "live" }),
    // What is known is of another history, or too old: the snapshot that follows says what is true.
    onLost: () => change({ ...NOTHING, isConnected: state.isConnected }),
    ...options,
  });

  return {
    subscribe(listener) {
      listeners.add(listener);
      if (leave === null) {
        const leaveOff = tend(socket, page);
        leave = () => {
          leaveOff();
          socket.close();
        };
        socket.connect();
      }
      return () => {
        listeners.delete(listener);
        if (listeners.size || leave === null) return;
        leave();
        leave = null;
      };
    },
    current: () => state,
    clearError: () => change({ errorNotification: null }),
    reconnect: () => socket.connect(),
  };
}
