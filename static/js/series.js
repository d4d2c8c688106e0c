// From rounds to what a chart draws: one column of numbers each, null where nothing finite was measured.

const finite = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);

/** Say whether the server had nothing to measure with, so that the devices' own means are all there is. */
export function isMeasuredOnDevices(rounds) {
  const published = rounds.filter((line) => line.version !== null);
  return published.length > 0 && published.every((line) => line.metrics === null);
}

/** Return a metric of a round: the server's, or the devices' weighted mean where `onDevices`. */
export function valueOf(line, name, onDevices) {
  return finite(onDevices ? line.device_metrics?.[name]?.mean : line.metrics?.[name]);
}

/**
 * Return the columns of a metric: round numbers, values, and the devices' 10th and 90th percentile.
 * Rounds that are still open are left out; those that failed stay, as gaps.
 */
export function columns(rounds, name, { onDevices = false, spread = true } = {}) {
  const x = [];
  const values = [];
  const low = [];
  const high = [];
  for (const line of rounds) {
    if (line.version === null && line.state !== "failed") continue;
    x.push(line.number);
    values.push(valueOf(line, name, onDevices));
    const told = spread ? line.device_metrics?.[name] : undefined;
    low.push(finite(told?.p10));
    high.push(finite(told?.p90));
  }
  return [x, values, low, high];
}

/** Return the best value of a column and its round, or null. */
export function bestOf([x, values], better) {
  let best = null;
  values.forEach((value, index) => {
    if (value !== null && (best === null || better(value, best.value))) best = { value, round: x[index] };
  });
  return best;
}

/** Return the median of the completed rounds' durations, or null. */
export function medianSeconds(rounds) {
  const durations = rounds.map((line) => finite(line.duration_seconds)).filter((value) => value !== null).sort((a, b) => a - b);
  if (!durations.length) return null;
  const middle = Math.floor(durations.length / 2);
  return durations.length % 2 ? durations[middle] : (durations[middle - 1] + durations[middle]) / 2;
}

/** Return rounds in the order of their numbers. */
export const inOrder = (rounds) => [...rounds.values()].sort((a, b) => a.number - b.number);
