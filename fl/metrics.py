"""What the metrics of many devices say together, and which of two models is the better one: pure arithmetic."""

import math
from collections.abc import Mapping, Sequence

Spread = dict[str, float | None]


def spread_of(values: Sequence[float], weights: Sequence[int]) -> Spread:
    """Return the mean (weighted), p10 and p90 (not weighted, linear between neighbours) of finite values.

    What is too large for a float64 is None.

    Args:
        values: one a device, at least one.
        weights: num_examples of each, at least 1.
    """
    total = sum(weights)
    ordered = sorted(values)
    mean = sum(value * (weight / total) for value, weight in zip(values, weights, strict=True))
    spread = {"mean": mean, "p10": _quantile(ordered, 0.1), "p90": _quantile(ordered, 0.9)}
    return {name: value if math.isfinite(value) else None for name, value in spread.items()}


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spreads_of(reports: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, Spread]:
    """Return the spread of each metric over the devices that reported it.

    Args:
        reports: (num_examples, metrics) of each device.
    """
    names = sorted({name for _, metrics in reports for name in metrics})
    spreads = {}
    for name in names:
        told = [(metrics[name], count) for count, metrics in reports if math.isfinite(metrics.get(name, math.nan))]
        if told:
            spreads[name] = spread_of([value for value, _ in told], [count for _, count in told])
    return spreads


def score(metrics: Mapping[str, float | None] | None, device_metrics: Mapping[str, Spread]) -> float | None:
    """Return the number that the best model has most of: accuracy, else loss turned round.

    The server's evaluation counts; where the server has no data of the task, the devices' weighted means do.
    None where nothing finite was measured.
    """
    measured: dict[str, float | None]
    if metrics is not None:
        measured = dict(metrics)
    else:
        measured = {name: spread["mean"] for name, spread in device_metrics.items()}
    for name, sign in (("accuracy", 1.0), ("loss", -1.0)):
        value = measured.get(name)
        if value is not None and math.isfinite(value):
            return sign * value
    return None
