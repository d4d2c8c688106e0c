"""Small charts that pages draw without scripts: numbers as the points of SVG polylines; pure."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 600, 120
_MARGIN = 6


@dataclass(frozen=True)
class Chart:
    """Lines over a ground of WIDTH × HEIGHT; the lowest value lies at its foot, the highest at its top."""

    lines: list[str]
    """Each the `points` of a polyline; a value alone is a point twice, which round ends make a dot."""
    low: float
    high: float
    last: float


def chart_of(values: Sequence[float | None], groups: Sequence[Hashable]) -> Chart | None:
    """Return the chart of values in their order; None where there is nothing to draw.

    Args:
        values: None is a gap.
        groups: what each value belongs to; lines do not cross from one group to the next.
    """
    measured = [value for value in values if value is not None]
    if not measured:
        return None
    low, high = min(measured), max(measured)
    lines = [_points(piece, len(values), low, high) for piece in _pieces(values, groups)]
    return Chart(lines=lines, low=low, high=high, last=measured[-1])


def _pieces(values: Sequence[float | None], groups: Sequence[Hashable]) -> Iterator[list[tuple[int, float]]]:
    """Yield runs of neighbours that are measured and of one group, as (place, value)."""
    piece: list[tuple[int, float]] = []
    for place, value in enumerate(values):
        if piece and (value is None or groups[place] != groups[place - 1]):
            yield piece
            piece = []
        if value is not None:
            piece.append((place, value))
    if piece:
        yield piece


def _points(piece: Sequence[tuple[int, float]], count: int, low: float, high: float) -> str:
    points = [f"{_x(place, count):.1f},{_y(value, low, high):.1f}" for place, value in piece]
    return " ".join(points if len(points) > 1 else points * 2)


def _x(place: int, count: int) -> float:
    return WIDTH / 2 if count == 1 else _MARGIN + place * (WIDTH - 2 * _MARGIN) / (count - 1)


def _y(value: float, low: float, high: float) -> float:
    if high == low:
        return HEIGHT / 2
    return HEIGHT - _MARGIN - (value - low) / (high - low) * (HEIGHT - 2 * _MARGIN)
