"""Polylines: what was not measured is a gap, and lines do not cross from run to run."""

from fl.charts import HEIGHT, WIDTH, chart_of


def points(line):
    return [tuple(map(float, point.split(","))) for point in line.split()]


def test_nothing_measured_draws_nothing():
    assert chart_of([], []) is None
    assert chart_of([None, None], [1, 1]) is None


def test_the_lowest_lies_at_the_foot_and_the_highest_at_the_top():
    chart = chart_of([1.0, 3.0, 2.0], [1, 1, 1])

    (line,) = chart.lines
    (_, first), (_, second), (_, third) = points(line)
    assert second < third < first
    assert (chart.low, chart.high, chart.last) == (1.0, 3.0, 2.0)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points(line))


def test_a_gap_and_another_run_break_the_line():
    chart = chart_of([1.0, 2.0, None, 3.0, 4.0, 5.0], [1, 1, 1, 1, 2, 2])

    assert [len(points(line)) for line in chart.lines] == [2, 2, 2]
    alone = points(chart.lines[1])
    assert alone[0] == alone[1]


def test_equal_values_lie_in_the_middle():
    assert {y for _, y in points(chart_of([2.0, 2.0], [1, 1]).lines[0])} == {HEIGHT / 2}
