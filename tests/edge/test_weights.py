"""What weights are called by: specs, digests, finiteness and norms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge.weights import (
    TensorSpec,
    UnsupportedTensor,
    first_non_finite,
    is_finite,
    norm,
    spec_digest,
    spec_of,
    weights_digest,
)

SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8])
WEIGHTS = st.dictionaries(
    st.text(max_size=8), st.builds(lambda shape, dtype: torch.ones(shape).to(dtype), SHAPES, DTYPES), max_size=5
)


def test_a_spec_says_dtype_and_shape_in_safetensors_words():
    weights = {"scale": torch.tensor(1.0), "count": torch.zeros(2, 3, dtype=torch.int64), "mask": torch.ones(1) > 0}

    assert spec_of(weights) == {
        "scale": TensorSpec("F32", ()),
        "count": TensorSpec("I64", (2, 3)),
        "mask": TensorSpec("BOOL", (1,)),
    }


def test_a_tensor_spec_knows_how_many_bytes_its_tensor_has():
    assert TensorSpec("BF16", (3, 5)).num_bytes == 30
    assert TensorSpec("F32", ()).num_bytes == 4
    assert TensorSpec("I64", (0, 7)).num_bytes == 0


def test_a_dtype_that_cannot_be_sent_is_refused_by_name():
    with pytest.raises(UnsupportedTensor, match="'phase' is ") as refused:
        spec_of({"phase": torch.zeros(2, dtype=torch.complex64)})

    assert refused.value.name == "phase"


@given(weights=WEIGHTS, order=st.randoms(use_true_random=False))
def test_digests_do_not_depend_on_the_order_of_names(weights, order):
    names = list(weights)
    order.shuffle(names)
    shuffled = {name: weights[name] for name in names}

    assert weights_digest(shuffled) == weights_digest(weights)
    assert spec_digest(spec_of(shuffled)) == spec_digest(spec_of(weights))


@given(first=WEIGHTS, second=WEIGHTS)
def test_weights_with_different_specs_never_share_a_digest(first, second):
    same = spec_of(first) == spec_of(second)

    assert (weights_digest(first) == weights_digest(second)) == same
    assert (spec_digest(spec_of(first)) == spec_digest(spec_of(second))) == same


@pytest.mark.parametrize(
    "other",
    [
        {"w": torch.tensor([1.0, 2.0000002])},
        {"w": torch.tensor([[1.0, 2.0]])},
        {"v": torch.tensor([1.0, 2.0])},
        {"w": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {"w": torch.tensor([1.0]), "w2": torch.tensor([2.0])},
        {"w": torch.tensor([1.0, 2.0]).view(torch.int32)},
    ],
    ids=["a bit", "the shape", "the name", "the dtype", "another cut", "the same bytes as integers"],
)
def test_a_digest_changes_with(other):
    assert weights_digest(other) != weights_digest({"w": torch.tensor([1.0, 2.0])})


def test_a_digest_is_of_values_not_of_how_they_lie_in_memory():
    columns = torch.arange(6.0).reshape(2, 3).t()

    assert weights_digest({"w": columns}) == weights_digest({"w": columns.contiguous()})


def test_the_digest_of_known_weights_stays_what_it_is():
    # Rows and files from last year name weights by it.
    weights = {"b": torch.tensor([1, 2], dtype=torch.int64), "a": torch.tensor([[0.5]])}

    assert weights_digest(weights) == "cfc57d0d71c38a2d127c3b5666ece559c7b56f6ea3d634744a2a802019225802"
    assert spec_digest(spec_of(weights)) == "93cc535af1751e7f37cd4e04809770f5232eb12dbdc5fcb4debda08830770646"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 57, 99])
def test_one_bad_number_anywhere_is_found_and_named(dtype, value, position):
    broken = torch.zeros(100, dtype=dtype)
    broken[position] = value

    assert first_non_finite({"good": torch.ones(3), "count": torch.ones(2, dtype=torch.int64), "bad": broken}) == "bad"
    assert not is_finite({"bad": broken})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_whose_sum_overflows_are_finite_all_the_same(dtype):
    assert is_finite({"large": torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)})


def test_integers_and_empty_tensors_are_finite():
    assert is_finite({"count": torch.tensor([2**62]), "empty": torch.empty(0), "mask": torch.tensor(True)})
    assert is_finite({})


def test_the_norm_is_over_all_floating_tensors_together():
    assert norm({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]]), "count": torch.tensor([100])}) == 5.0
    assert norm({}) == 0.0


def test_the_norm_does_not_overflow_where_float32_would():
    assert norm({"a": torch.full((4,), 1e38)}) == pytest.approx(2e38, rel=1e-7)


def test_the_norm_of_what_is_not_finite_is_not_finite():
    assert math.isnan(norm({"a": torch.tensor([1.0, math.nan])}))
    assert math.isinf(norm({"a": torch.tensor([1.0, math.inf])}))


def test_the_norm_agrees_with_float64_and_is_the_same_bits_on_any_number_of_threads():
    weights = {"a": torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))}
    threads = torch.get_num_threads()

    norms = []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            norms.append(norm(weights))
    finally:
        torch.set_num_threads(threads)

    assert norms[0] == norms[1] == norms[2]
    exact = math.sqrt(math.fsum(value * value for value in weights["a"].tolist()))
    assert norms[0] == pytest.approx(exact, rel=1e-14)
