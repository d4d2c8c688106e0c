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

const BETTER = { accuracy: (a, b) => a > b, loss: (a, b) => a < b };

/**
 * Put a round's values into a curve, in the order of rounds; a round that is there already gets them instead.
 * @param {object} curve columns `first`, `rounds`, `seconds`, `accuracy`, `loss`, of one length; `best` and `last` of each metric
 * @param {{round: number, timestamp: string, accuracy: number|null, loss: number|null}} point
 */
export function addPoint(curve, { round, timestamp, accuracy, loss }) {
  for (const [name, value] of Object.entries({ accuracy, loss })) if (value !== null) takeEnds(curve, name, { value, round });
  let place = curve.first.findLastIndex((number) => number <= round);
  const known = place >= 0 && round <= curve.rounds[place];
  if (known && curve.first[place] < curve.rounds[place]) return; // it counts already, among others
  if (!known) place += 1;
  const began = Date.parse(curve.started_at ?? timestamp);
  const values = { first: round, rounds: round, seconds: Math.max(0, (Date.parse(timestamp) - began) / 1000), accuracy, loss };
  for (const [name, value] of Object.entries(values)) curve[name].splice(place, known ? 1 : 0, value);
}

/** Keep the first of the best values of a metric, and the newest. */
function takeEnds({ best, last }, name, point) {
  if (!last[name] || point.round >= last[name].round) last[name] = point;
  const isEarlier = point.value === best[name]?.value && point.round < best[name].round;
  if (!best[name] || BETTER[name](point.value, best[name].value) || isEarlier) best[name] = point;
}

/**
 * Bring curves over one axis: the sorted union of their x, and a column for each. Where a curve has no point it is
 * undefined, which a line passes over; where a point has no value it is null, which is a gap.
 * @param {"round"|"time"} axis
 * @param {object[]} [wide] curves whose least and greatest values come too, in two more columns for each
 */
export function align(curves, name, axis, wide = []) {
  const column = axis === "time" ? "seconds" : "rounds";
  const xs = [...new Set(curves.flatMap((curve) => curve[column]))].sort((a, b) => a - b);
  const places = new Map(xs.map((x, index) => [x, index]));
  const spread = (curve, own) => {
    const values = new Array(xs.length).fill(undefined);
    own.forEach((value, index) => (values[places.get(curve[column][index])] = value));
    return values;
  };
  return [xs, ...curves.map((curve) => spread(curve, curve[name])), ...wide.flatMap((curve) => [spread(curve, curve.low[name]), spread(curve, curve.high[name])])];
}

/** Return the index of the curve's column that `x` is of: by time its last one at or before it; -1 for none. */
export function indexAt(curve, axis, x) {
  if (axis === "time") return curve.seconds.findLastIndex((own) => own <= x);
  const index = curve.first.findLastIndex((first) => first <= x);
  return index >= 0 && x <= curve.rounds[index] ? index : -1;
}
