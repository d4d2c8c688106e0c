"""How examples are cut among devices."""

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from edge.partition import (
    MINIMUM_EXAMPLES,
    InvalidPartition,
    Partition,
    PartitionImpossible,
    indices_for,
    split_off_test,
)

LABELS = np.arange(1_000) % 10


def pieces(labels, kind, count, alpha=0.3, seed=0):
    return [indices_for(labels, Partition(kind, index, count, alpha, seed)) for index in range(count)]


def class_shares(labels, piece):
    return np.bincount(labels[piece], minlength=10) / len(piece)


@given(
    kind=st.sampled_from(["iid", "dirichlet"]),
    count=st.integers(1, 12),
    alpha=st.floats(0.3, 1_000),
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 10),
    size=st.integers(400, 600),
)
@settings(max_examples=50)
def test_the_pieces_cover_all_examples_exactly_once_and_none_is_too_small(kind, count, alpha, seed, classes, size):
    labels = np.arange(size) % classes
    try:
        cut = pieces(labels, kind, count, alpha, seed)
    except PartitionImpossible:
        reject()  # few classes, many devices and a small alpha

    assert np.array_equal(np.sort(np.concatenate(cut)), np.arange(len(labels)))
    assert min(len(piece) for piece in cut) >= MINIMUM_EXAMPLES


def test_a_device_cuts_the_same_piece_each_time_and_another_for_another_seed():
    first = indices_for(LABELS, Partition("dirichlet", 2, 5, seed=7))
    again = indices_for(LABELS, Partition("dirichlet", 2, 5, seed=7))
    other = indices_for(LABELS, Partition("dirichlet", 2, 5, seed=8))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_cut_is_the_same_with_every_release():
    """Devices with other releases of this package or of numpy must not be given the same examples twice."""
    sizes = [len(piece) for piece in pieces(LABELS, "dirichlet", 5, seed=7)]
    first = indices_for(LABELS, Partition("iid", 0, 100, seed=7))

    assert sizes == [147, 348, 189, 96, 220]
    assert first.tolist() == [94, 170, 216, 271, 334, 408, 487, 778, 802, 812]


def test_iid_pieces_differ_by_one_example_at_most_and_look_alike():
    cut = pieces(LABELS[:997], "iid", 4)

    assert sorted(len(piece) for piece in cut) == [249, 249, 249, 250]
    assert all(np.abs(class_shares(LABELS, piece) - 0.1).max() < 0.08 for piece in cut)


def test_a_small_alpha_gives_each_device_few_classes_and_a_large_one_many():
    few = [class_shares(LABELS, piece).max() for piece in pieces(LABELS, "dirichlet", 5, alpha=0.1)]
    many = [class_shares(LABELS, piece).max() for piece in pieces(LABELS, "dirichlet", 5, alpha=1_000)]

    assert np.mean(few) > 0.35
    assert np.mean(many) < 0.15


def test_a_draw_that_leaves_a_device_too_little_is_drawn_again():
    """With alpha 0.1 and 10 devices few first draws will do; all 50 seeds end with enough for everyone."""
    smallest = [
        min(len(piece) for piece in pieces(LABELS, "dirichlet", 10, alpha=0.1, seed=seed)) for seed in range(50)
    ]

    assert min(smallest) >= MINIMUM_EXAMPLES


def test_more_devices_than_the_examples_are_enough_for_is_impossible():
    with pytest.raises(PartitionImpossible, match=r"45 examples cannot be shared by 5 devices .* at most 4 devices"):
        indices_for(LABELS[:45], Partition("iid", 0, 5))


@pytest.mark.parametrize("alpha", [0.01, 1e-300])
def test_a_cut_that_no_draw_fulfils_says_so(alpha):
    with pytest.raises(PartitionImpossible, match="fewer devices or a greater alpha"):
        indices_for(LABELS, Partition("dirichlet", 0, 90, alpha=alpha))


@pytest.mark.parametrize(
    ("text", "partition"),
    [
        ("iid:0/5", Partition("iid", 0, 5)),
        ("iid:4/5:7", Partition("iid", 4, 5, seed=7)),
        ("dirichlet:0.3:2/5:7", Partition("dirichlet", 2, 5, 0.3, 7)),
        ("dirichlet:100:0/1", Partition("dirichlet", 0, 1, 100.0)),
    ],
)
def test_a_partition_is_read_from_text_and_written_as_text(text, partition):
    assert Partition.parse(text) == partition
    assert Partition.parse(str(partition)) == partition


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "write iid"),
        ("iid", "write iid"),
        ("dirichlet", "write iid"),
        ("sorted:0/5", "write iid"),
        ("dirichlet:0/5", "write iid"),
        ("dirichlet:few:0/5", "write iid"),
        ("iid:1", "write iid"),
        ("iid:a/b", "write iid"),
        ("iid:0/5:7:8", "write iid"),
        ("iid:5/5", "5 pieces are numbered 0 to 4"),
        ("iid:-1/5", "5 pieces are numbered 0 to 4"),
        ("iid:0/0", "at least 1 piece"),
        ("dirichlet:0:0/5", "alpha is a number above 0"),
        ("dirichlet:nan:0/5", "alpha is a number above 0"),
        ("dirichlet:inf:0/5", "alpha is a number above 0"),
        ("iid:0/5:-1", "a seed is"),
        ("iid:0/5:4294967296", "a seed is"),
    ],
)
def test_a_malformed_partition_is_refused_with_what_to_write(text, why):
    with pytest.raises(InvalidPartition, match=why):
        Partition.parse(text)


def test_a_kind_that_is_unknown_is_refused():
    with pytest.raises(InvalidPartition, match="iid and dirichlet"):
        Partition("sorted", 0, 5)


def test_the_test_split_takes_its_share_of_each_class_and_nothing_is_lost():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 21)

    training, test = split_off_test(labels, share=0.2, seed=3)

    assert np.bincount(labels[test]).tolist() == [10, 6, 4]
    assert np.array_equal(np.sort(np.concatenate([training, test])), np.arange(101))
    assert all(map(np.array_equal, split_off_test(labels, share=0.2, seed=3), (training, test)))
