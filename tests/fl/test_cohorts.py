"""Who is selected: by the seed and the set of those who could be, and each as likely as the others."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.cohorts import select_cohort

names = st.sets(st.text(min_size=1, max_size=20), min_size=1, max_size=50)


@given(names, st.integers(0, 2**63 - 1), st.data())
def test_a_cohort_is_of_the_size_asked_for_and_rises(devices, seed, data):
    size = data.draw(st.integers(0, len(devices)))

    cohort = select_cohort(sorted(devices), size, seed)

    assert len(cohort) == size
    assert set(cohort) <= devices
    assert cohort == sorted(set(cohort))


@given(names, st.integers(0, 2**63 - 1), st.randoms(use_true_random=False), st.data())
def test_the_order_in_which_devices_are_named_does_not_matter(devices, seed, chance, data):
    size = data.draw(st.integers(0, len(devices)))
    shuffled = list(devices)
    chance.shuffle(shuffled)

    assert select_cohort(shuffled, size, seed) == select_cohort(sorted(devices), size, seed)


def test_every_device_is_about_as_likely():
    chosen = Counter(one for seed in range(3000) for one in select_cohort("abcdefghij", 3, seed))

    assert all(800 < count < 1000 for count in chosen.values())
    assert len(chosen) == 10


def test_known_draws_stay_what_they_are():
    # A run that goes on after an upgrade must select whom it would have selected before.
    assert select_cohort("abcdefgh", 3, 42) == ["a", "b", "f"]


def test_too_few_devices_are_an_error():
    with pytest.raises(ValueError):
        select_cohort("ab", 3, 0)
