"""What the metrics of many devices say together, and which of two models is the better one: pure arithmetic."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Headline:
    """The one number that stands for a model: its accuracy, else its loss; finite."""

    name: str
    value: float
    on_devices: bool
    """It is the devices' weighted mean: the server has no data of the task."""


SIGNS: Mapping[str, float] = {"accuracy": 1.0, "loss": -1.0}
"""The metrics that a headline may be, first choice first → whether more of it is better."""


def measured(
    metrics: Mapping[str, float | None] | None, device_metrics: Mapping[str, Mapping[str, float | None]]
) -> dict[str, float | None]:
    """Return what counts as measured of a model, None where it is not finite.

    The server's evaluation counts; where the server has no data of the task, the devices' weighted means do.

    Args:
        metrics: the server's evaluation, or None.
        device_metrics: metric → spread over the devices.
    """
    if metrics is None:
        metrics = {name: spread["mean"] for name, spread in device_metrics.items()}
    return {name: value if value is not None and math.isfinite(value) else None for name, value in metrics.items()}


def headline(
    metrics: Mapping[str, float | None] | None, device_metrics: Mapping[str, Mapping[str, float | None]]
) -> Headline | None:
    """Return what stands for a model of all that was `measured`; None where nothing finite was."""
    found = measured(metrics, device_metrics)
    for name in SIGNS:
        value = found.get(name)
        if value is not None:
            return Headline(name, value, on_devices=metrics is None)
    return None


def score(metrics: Mapping[str, float | None] | None, device_metrics: Mapping[str, Spread]) -> float | None:
    """Return the number that the best model has most of: its headline, loss turned round; None where it has none."""
    found = headline(metrics, device_metrics)
    return None if found is None else SIGNS[found.name] * found.value
