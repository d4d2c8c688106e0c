"""Seeds: the same wherever they are derived, and different for each purpose."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from fl.models.run import MAX_SEED
from fl.seeds import cohort_seed, derive_seed, model_seed, training_seed


@given(st.integers(0, MAX_SEED), st.integers(0, 10**6), st.text(max_size=20), st.integers(0, 10**4))
def test_a_seed_is_a_positive_63_bit_number_and_repeats(run_seed, number, purpose, index):
    seed = derive_seed(run_seed, number, purpose, index)

    assert 0 <= seed < 2**63
    assert seed == derive_seed(run_seed, number, purpose, index)


def test_a_seed_is_the_head_of_a_sha256():
    digest = hashlib.sha256(b"7/3/training/2").digest()

    assert training_seed(7, 3, 2) == int.from_bytes(digest[:8], "big") >> 1


def test_every_purpose_round_and_place_has_a_seed_of_its_own():
    seeds = [model_seed(run) for run in range(5)]
    seeds += [cohort_seed(run, number) for run in range(5) for number in range(1, 20)]
    seeds += [training_seed(run, number, index) for run in range(5) for number in range(1, 20) for index in range(10)]

    assert len(set(seeds)) == len(seeds)
