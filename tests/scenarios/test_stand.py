"""What counts as left behind, of what is there only for a moment: that of which there is always some."""

from tests.scenarios.stand import Fewest, more_than


def looks(*passing):
    """Return what a look at each moment says is left."""
    fewest, before = Fewest(), {"connections": 0, "passing": {"Standing": 9}}
    return [more_than(before, fewest.of({"connections": 0, "passing": now})) for now in passing]


def test_what_is_gone_at_some_look_is_not_left_behind_each_kind_at_its_own():
    first, second, third = looks({"Standing": 1, "Figures": 2}, {"Figures": 1}, {"Standing": 1})

    assert first == {"Standing": (0, 1), "Figures": (0, 2)}
    assert second == {"Figures": (0, 1)}
    assert third == {}


def test_what_is_there_at_every_look_is_left_behind_however_many_there_were_before():
    *_, last = looks({"Standing": 3}, {"Standing": 1, "Figures": 1}, {"Standing": 2})

    assert last == {"Standing": (0, 1)}


def test_what_comes_after_a_look_without_it_has_passed_once_already():
    assert looks({}, {"Figures": 5})[-1] == {}
