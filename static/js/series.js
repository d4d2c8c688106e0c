// From rounds to what a chart draws: one column of numbers each, null where nothing finite was measured. The server does
// the same for its API (fl/series.py); a test holds both against the same rounds.

const finite = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
const isFinished = (line) => line.version !== null || line.state === "failed";

/** Say whether the server had nothing to measure with, so that the devices' own means are all there is. */
export function isMeasuredOnDevices(rounds) {
  const published = rounds.filter((line) => line.version !== null);
  return published.length > 0 && published.every((line) => line.metrics === null);
}

/** Return a metric of a round: the server's, or the devices' weighted mean where `onDevices`. */
export function valueOf(line, name, onDevices) {
  return finite(onDevices ? line.device_metrics?.[name]?.mean : line.metrics?.[name]);
}

/** Say whether a metric was measured and came out as no finite number, which the server tells as null. */
export function isNotFinite(line, name, onDevices) {
  const told = onDevices ? line.device_metrics?.[name]?.mean : line.metrics?.[name];
  return told !== undefined && finite(told) === null;
}

/** Return how many seconds after the run's start a round ended, or null. */
export function secondsOf(line, startedAt) {
  if (line.number === 0) return 0;
  return line.ended_at && startedAt ? (Date.parse(line.ended_at) - Date.parse(startedAt)) / 1000 : null;
}

/**
 * Return the columns of a metric, as the server's API names them.
 * Rounds that are still open are left out; those that failed stay, as gaps.
 * @returns {{last: number[], seconds: (number|null)[], mean: (number|null)[], low: (number|null)[], high: (number|null)[], notFinite: number[]}}
 *   `low` and `high` are the devices' 10th and 90th percentile; in a column of several rounds the least and the greatest value
 */
export function columns(rounds, name, { onDevices = false, startedAt = null, earlier = null } = {}) {
  const before = earlier ? ofSeries(earlier, name) : { last: [], seconds: [], mean: [], low: [], high: [], notFinite: [] };
  const shown = rounds.filter(isFinished);
  const spread = (which) => shown.map((line) => finite(line.device_metrics?.[name]?.[which]));
  return {
    last: [...before.last, ...shown.map((line) => line.number)],
    // Reading thousands of times is half of it all, and rarely asked for.
    get seconds() {
      return [...before.seconds, ...shown.map((line) => secondsOf(line, startedAt))];
    },
    mean: [...before.mean, ...shown.map((line) => valueOf(line, name, onDevices))],
    low: [...before.low, ...spread("p10")],
    high: [...before.high, ...spread("p90")],
    notFinite: [...before.notFinite, ...shown.filter((line) => isNotFinite(line, name, onDevices)).map((line) => line.number)],
  };
}

/** Return the columns of a metric of a series that the server told. */
export function ofSeries({ first, last, seconds, metrics }, name) {
  const { min, mean, max, p10, p90, not_finite: notFinite } = metrics[name];
  const isOne = (index) => first[index] === last[index];
  return { last, seconds, mean, low: mean.map((_, i) => (isOne(i) ? p10[i] : min[i])), high: mean.map((_, i) => (isOne(i) ? p90[i] : max[i])), notFinite };
}

/** Return values with each moved towards those before it; `weight` in [0, 1), 0 moves nothing. Gaps stay gaps. */
export function smooth(values, weight) {
  let sum = 0;
  let mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = sum * weight + value * (1 - weight);
    mass = mass * weight + (1 - weight);
    return sum / mass;
  });
}

/**
 * Put two curves on one axis: return all places of both in order, and the values of each there.
 * Where only the other curve has a place, the value is undefined, through which a line is drawn; null is a gap.
 */
export function joined(xs, columnsOfFirst, otherX, otherValues) {
  if (!otherX.length && !xs.includes(null)) return [xs, ...columnsOfFirst.map((values) => (values.length ? values : xs.map(() => undefined))), xs.map(() => undefined)];
  const places = [...new Set([...xs, ...otherX])].filter((x) => x !== null).sort((a, b) => a - b);
  const at = new Map(places.map((place, index) => [place, index]));
  const spread = (from, values) => {
    const row = new Array(places.length).fill(undefined);
    from.forEach((place, index) => place !== null && (row[at.get(place)] = values[index]));
    return row;
  };
  return [places, ...columnsOfFirst.map((values) => spread(xs, values)), spread(otherX, otherValues)];
}

/** Return the best value of a column and its round, or `best` where none is better. */
export function bestOf(rounds, values, better, best = null) {
  values.forEach((value, index) => {
    if (value !== null && (best === null || better(value, best.value))) best = { value, round: rounds[index] };
  });
  return best;
}

/** Return the median of the completed rounds' durations, or null. */
export function medianSeconds(rounds) {
  const completed = rounds.filter((line) => line.state === "completed");
  const durations = completed.map((line) => finite(line.duration_seconds)).filter((value) => value !== null).sort((a, b) => a - b);
  if (!durations.length) return null;
  const middle = Math.floor(durations.length / 2);
  return durations.length % 2 ? durations[middle] : (durations[middle - 1] + durations[middle]) / 2;
}

/** Return rounds in the order of their numbers. */
export const inOrder = (rounds) => [...rounds.values()].sort((a, b) => a.number - b.number);
