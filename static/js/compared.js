// Several runs in one chart: their points as columns over one axis, and what an event adds to a run's curve.

const finite = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);

/** Return a metric of a published model: the server's, or the devices' weighted mean where the server has no data. */
export function measuredOf({ metrics, device_metrics }, name) {
  return finite(metrics === null || metrics === undefined ? device_metrics?.[name]?.mean : metrics[name]);
}

/** Return what stands for a model, as fl/metrics.py decides: {name, value, on_devices}, or null where nothing was measured. */
export function headlineOf(model) {
  for (const name of ["accuracy", "loss"]) {
    const value = measuredOf(model, name);
    if (value !== null) return { name, value, on_devices: model.metrics === null || model.metrics === undefined };
  }
  return null;
}

/**
 * Put a round's values into a curve, in the order of rounds; a round that is there already gets them instead.
 * @param {object} curve columns `rounds`, `seconds`, `accuracy`, `loss`, of one length
 * @param {{round: number, timestamp: string, accuracy: number|null, loss: number|null}} point
 */
export function addPoint(curve, { round, timestamp, accuracy, loss }) {
  const began = Date.parse(curve.started_at ?? timestamp);
  const values = { rounds: round, seconds: Math.max(0, (Date.parse(timestamp) - began) / 1000), accuracy, loss };
  let place = curve.rounds.findLastIndex((number) => number <= round);
  const known = place >= 0 && curve.rounds[place] === round;
  if (!known) place += 1;
  for (const [name, value] of Object.entries(values)) curve[name].splice(place, known ? 1 : 0, value);
}

/**
 * Bring curves over one axis: the sorted union of their x, and a column for each. Where a curve has no point it is
 * undefined, which a line passes over; where a point has no value it is null, which is a gap.
 * @param {"round"|"time"} axis
 */
export function align(curves, name, axis) {
  const column = axis === "time" ? "seconds" : "rounds";
  const xs = [...new Set(curves.flatMap((curve) => curve[column]))].sort((a, b) => a - b);
  const places = new Map(xs.map((x, index) => [x, index]));
  const columns = curves.map((curve) => {
    const values = new Array(xs.length).fill(undefined);
    curve[column].forEach((x, index) => (values[places.get(x)] = curve[name][index]));
    return values;
  });
  return [xs, ...columns];
}

/** Return the index of a curve's own last point at or before `x`, or -1. */
export const indexAt = (curve, axis, x) => curve[axis === "time" ? "seconds" : "rounds"].findLastIndex((own) => own <= x);

/** Return the best and the last value of a metric with their rounds; null where nothing was measured. */
export function endsOf(curve, name) {
  const isBetter = name === "loss" ? (a, b) => a < b : (a, b) => a > b;
  let best = null;
  let last = null;
  curve[name].forEach((value, index) => {
    if (value === null) return;
    last = { value, round: curve.rounds[index] };
    if (best === null || isBetter(value, best.value)) best = last;
  });
  return { best, last };
}
