"""What crosses the network as weights, and each way in which a stranger's payload is refused."""

import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge import wire
from edge.weights import Spec, TensorSpec, norm, spec_of, weights_digest

WEIGHTS = {
    "layer.weight": torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.0, -0.0]]),
    "layer.bias": torch.tensor([0.25, -0.25]),
    "seen": torch.tensor(7),
}
SPEC = spec_of(WEIGHTS)

# A payload like WEIGHTS' in miniature, to be spoiled by hand: 8 bytes of F32 and 4 of U8.
SMALL_SPEC = {"w": TensorSpec("F32", (2,)), "u": TensorSpec("U8", (4,))}
SMALL_HEADER = {
    "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "u": {"dtype": "U8", "shape": [4], "data_offsets": [8, 12]},
}
SMALL_DATA = struct.pack("<2f", 1.0, 2.0) + bytes([1, 2, 3, 4])


def payload(header: object, data: bytes = SMALL_DATA) -> bytes:
    """Lay out a safetensors payload whose header is `header`, as JSON or as the text given."""
    text = header if isinstance(header, str) else json.dumps(header)
    raw = text.encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + data


def changed(name: str, **fields: object) -> dict[str, object]:
    return SMALL_HEADER | {name: SMALL_HEADER[name] | fields}


SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
DTYPES = st.sampled_from(["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"])
SPECS = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name != "__metadata__"), st.builds(TensorSpec, DTYPES, SHAPES), max_size=5
)


def numbers(spec: Spec) -> dict[str, torch.Tensor]:
    """Make weights of this spec with values 0, 1, 2, …"""
    return {name: torch.arange(t.num_elements).reshape(t.shape).to(t.torch_dtype) for name, t in spec.items()}


@given(spec=SPECS)
def test_what_is_encoded_is_decoded_bit_by_bit(spec):
    weights = numbers(spec)

    data = wire.encode(weights)

    assert weights_digest(wire.decode(data, spec)) == weights_digest(weights)
    assert len(data) <= wire.max_size(spec)


@given(spec=SPECS)
def test_the_library_reads_what_we_write_and_we_read_what_it_writes(spec):
    weights = numbers(spec)

    assert weights_digest(safetensors.torch.load(wire.encode(weights))) == weights_digest(weights)
    assert weights_digest(wire.decode(safetensors.torch.save(weights), spec)) == weights_digest(weights)


def test_signs_of_zero_and_payloads_of_nan_survive():
    weights = {"w": torch.tensor([0x7FC00001, -0x80000000, 1], dtype=torch.int32).view(torch.float32)}

    decoded = wire.decode(wire.encode(weights), spec_of(weights))

    assert decoded["w"].view(torch.int32).tolist() == [0x7FC00001, -0x80000000, 1]


def test_tensors_that_share_memory_or_lie_scattered_are_sent_each_for_itself():
    shared = torch.arange(6.0).reshape(2, 3)
    weights = {"embedding": shared, "head": shared, "turned": shared.t(), "part": shared[:, 1]}

    decoded = wire.decode(wire.encode(weights), spec_of(weights))

    assert {name: tensor.tolist() for name, tensor in decoded.items()} == {
        name: tensor.tolist() for name, tensor in weights.items()
    }


def test_decoded_tensors_are_the_callers_own():
    data = wire.encode(WEIGHTS)

    wire.decode(data, SPEC)["layer.bias"].fill_(9)

    assert weights_digest(wire.decode(data, SPEC)) == weights_digest(WEIGHTS)


def test_a_mistaken_write_to_a_mapped_file_never_reaches_the_file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(wire.encode(WEIGHTS))

    wire.read_file(path, SPEC)["layer.bias"].fill_(9)

    assert path.read_bytes() == wire.encode(WEIGHTS)


def test_a_part_of_a_mapped_tensor_outlives_all_else(tmp_path):
    weights = {"large": torch.arange(6_000_000.0), "small": torch.ones(3)}
    path = tmp_path / "weights"
    path.write_bytes(wire.encode(weights))

    mapped = wire.read_file(path, spec_of(weights))
    part = mapped["large"][5:]
    del mapped

    assert torch.equal(part, weights["large"][5:])


def test_a_part_of_a_file_is_read_without_bringing_in_any_page_of_its_mapping(tmp_path):
    weights = {f"w{index:02}": torch.arange(500_000.0) + index for index in range(5)}
    path = tmp_path / "weights"
    path.write_bytes(wire.encode(weights))
    mapped = wire.read_file(path, spec_of(weights))
    before = resident_kilobytes(path)
    room = torch.empty(1000)

    for name in reversed(weights):
        mapped.read_into(room.numpy().data.cast("B"), name, 4 * 7000)

        assert torch.equal(room, weights[name][7000:8000])

    assert resident_kilobytes(path) == before


def test_the_norm_of_a_file_is_that_of_its_weights_to_the_last_bit(tmp_path):
    generator = torch.Generator().manual_seed(1)
    weights = {
        "large": torch.randn(2_500_001, generator=generator),  # more than two pieces
        "half": torch.randn((300, 200), generator=generator).half(),
        "none": torch.ones(0),
        "count": torch.tensor([7]),
    }
    path = tmp_path / "weights"
    path.write_bytes(wire.encode(weights))

    assert wire.norm_in_file(path, spec_of(weights)) == norm(weights)


@pytest.mark.parametrize("data", [b"", b"123", payload(SMALL_HEADER)[:-1], payload("{}")])
def test_a_file_that_is_not_what_it_must_be_has_no_norm(tmp_path, data):
    path = tmp_path / "weights"
    path.write_bytes(data)

    with pytest.raises(wire.WireError):
        wire.norm_in_file(path, SMALL_SPEC)


def test_nothing_but_empty_tensors_is_read_from_a_file_that_ends_with_a_page(tmp_path):
    text = json.dumps({"w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})
    path = tmp_path / "weights"
    path.write_bytes(payload(text.ljust(4096 - 8), b""))

    assert wire.read_file(path, {"w": TensorSpec("F32", (0,))})["w"].shape == (0,)


def resident_kilobytes(path) -> int:
    """Ask the kernel how much of this file's mapping is in memory."""
    with Path("/proc/self/smaps").open() as smaps:
        lines = iter(smaps)
        return sum(
            int(next(line for line in lines if line.startswith("Rss:")).split()[1])
            for line in lines
            if line.rstrip().endswith(str(path))
        )


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ({"w": SMALL_HEADER["w"]}, wire.WrongNames),
        (SMALL_HEADER | {"x": {"dtype": "F32", "shape": [0], "data_offsets": [12, 12]}}, wire.WrongNames),
        (SMALL_HEADER | {"../../etc/passwd\0": SMALL_HEADER["w"]}, wire.WrongNames),
        ({}, wire.WrongNames),
        (changed("w", dtype="I32"), wire.WrongDtype),
        (changed("w", dtype="F64", shape=[1]), wire.WrongDtype),
        (changed("w", dtype=7), wire.WrongDtype),
        (changed("w", shape=[1, 2]), wire.WrongShape),
        (changed("w", shape=[2] + [1] * 1000), wire.WrongShape),
        (changed("w", shape=[0], data_offsets=[0, 0]), wire.WrongShape),
        (changed("w", shape=[-2]), wire.WrongShape),
        (changed("w", shape=[2.0]), wire.WrongShape),
        (changed("w", shape="2"), wire.WrongShape),
        (changed("w", data_offsets=[0, 4]), wire.BadLayout),
        (changed("w", data_offsets=[-8, 0]), wire.BadLayout),
        (changed("w", data_offsets=[4, 12]), wire.BadLayout),
        (changed("u", data_offsets=[4, 8]), wire.BadLayout),
        (changed("w", data_offsets=[10**30, 10**30 + 8]), wire.BadLayout),
        (changed("w", data_offsets=[0, 8, 16]), wire.BadHeader),
        (changed("w", data_offsets=[False, 8]), wire.BadHeader),
        (changed("w", data_offsets=None), wire.BadHeader),
        (changed("w", strides=[1]), wire.BadHeader),
        (SMALL_HEADER | {"w": [1, 2]}, wire.BadHeader),
        ({"w": SMALL_HEADER["w"] | {"data_offsets": [4, 12]}, "u": SMALL_HEADER["u"] | {"data_offsets": [0, 4]}}, None),
        ({"w": SMALL_HEADER["w"] | {"data_offsets": [2, 10]}, "u": SMALL_HEADER["u"]}, wire.BadLayout),
        (SMALL_HEADER | {"__metadata__": {"format": "pt"}}, None),
        (SMALL_HEADER | {"__metadata__": {"note": "x" * 5000}}, wire.MetadataTooLarge),
        (SMALL_HEADER | {"__metadata__": {"note": 1}}, wire.BadHeader),
        (SMALL_HEADER | {"__metadata__": "pt"}, wire.BadHeader),
        ([], wire.BadHeader),
        ("", wire.BadHeader),
        ("{", wire.BadHeader),
        ('{"w": ' + "[" * 50_000, wire.BadHeader),
        ('{"w": ' + "9" * 5_000 + "}", wire.BadHeader),
        ('{"w": 1, "w": 2}', wire.DuplicateName),
        ('{"w": {"dtype": "F32", "dtype": "F64"}}', wire.DuplicateName),
    ],
)
def test_a_header_is_believed_only_where_the_spec_says_the_same(header, error):
    data = payload(header)

    if error is None:
        assert wire.decode(data, SMALL_SPEC)["u"].numel() == 4
    else:
        with pytest.raises(error) as refused:
            wire.decode(data, SMALL_SPEC)
        assert type(refused.value) is error


def test_a_tensor_that_begins_askew_is_refused():
    spec = {"u": TensorSpec("U8", (3,)), "w": TensorSpec("F32", (1,))}
    header = {
        "u": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "w": {"dtype": "F32", "shape": [1], "data_offsets": [3, 7]},
    }

    with pytest.raises(wire.BadLayout, match="askew"):
        wire.decode(payload(header, bytes(7)), spec)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", wire.Truncated),
        (b"\x02\0\0\0", wire.Truncated),
        (struct.pack("<Q", 500) + b"{}", wire.Truncated),
        (struct.pack("<Q", 2**63) + b"{}", wire.BadHeader),
        (struct.pack("<Q", 3) + b"\xff{}", wire.BadHeader),
        (payload(SMALL_HEADER)[:-1], wire.Truncated),
        (payload(SMALL_HEADER) + b"\0", wire.BadLayout),
        (payload(SMALL_HEADER) + bytes(100_000), wire.TooLarge),
    ],
    ids=["empty", "half a length", "header cut", "header of 2^63", "not UTF-8", "tensor cut", "one more", "many more"],
)
def test_a_payload_of_another_length_than_it_says_is_refused(data, error, tmp_path):
    (tmp_path / "update").write_bytes(data)

    with pytest.raises(error):
        wire.decode(data, SMALL_SPEC)
    with pytest.raises(error):
        wire.check_file(tmp_path / "update", SMALL_SPEC)


def test_a_header_over_a_megabyte_is_refused_even_where_the_payload_may_be_larger():
    spec = {"w": TensorSpec("F32", (1_000_000,))}
    header = {"__metadata__": {}, "w": {"dtype": "F32", "shape": [1_000_000], "data_offsets": [0, 4_000_000]}}

    with pytest.raises(wire.BadHeader, match="1000000 are allowed"):
        wire.decode(payload(json.dumps(header) + " " * 1_000_000), spec)


@given(spec=SPECS, data=st.data())
def test_no_prefix_of_a_payload_is_taken_for_the_whole(spec, data):
    whole = wire.encode(numbers(spec))
    cut = data.draw(st.integers(0, len(whole) - 1))

    with pytest.raises(wire.WireError):
        wire.decode(whole[:cut], spec)


@given(first=SPECS, second=SPECS)
def test_weights_of_one_spec_are_never_taken_for_those_of_another(first, second):
    data = wire.encode(numbers(first))

    if first == second:
        wire.decode(data, second)
    else:
        with pytest.raises(wire.WireError):
            wire.decode(data, second)


@given(data=st.binary(max_size=300), length=st.none() | st.integers(0, 300))
def test_noise_is_refused_and_nothing_else_happens(data, length):
    noise = data if length is None else struct.pack("<Q", length) + data

    with pytest.raises(wire.WireError):
        wire.decode(noise, SMALL_SPEC)


@given(position=st.integers(8, 150), byte=st.integers(0, 255))
def test_a_changed_byte_of_the_header_is_refused_or_changes_nothing(position, byte):
    whole = bytearray(payload(SMALL_HEADER))
    end = len(whole) - len(SMALL_DATA)
    whole[min(position, end - 1)] = byte

    try:
        decoded = wire.decode(bytes(whole), SMALL_SPEC)
    except wire.WireError:
        return
    assert decoded["w"].tolist() == [1.0, 2.0]
    assert decoded["u"].tolist() == [1, 2, 3, 4]


def test_errors_name_a_few_strange_tensors_in_plain_letters_and_not_all():
    header = SMALL_HEADER | {f"\x1b[31m{index}" + "x" * 500: SMALL_HEADER["w"] for index in range(100)}

    with pytest.raises(wire.WrongNames) as refused:
        wire.decode(payload(header), SMALL_SPEC)

    text = str(refused.value)
    assert text.isprintable()
    assert text.endswith("and 97 more")
    assert len(text) < 400


def test_every_refusal_has_a_code_of_its_own():
    errors = [
        wire.Truncated, wire.TooLarge, wire.BadHeader, wire.DuplicateName, wire.MetadataTooLarge, wire.BadLayout,
        wire.WrongNames, wire.WrongDtype, wire.WrongShape, wire.NotFinite,
    ]  # fmt: skip

    assert [error.code for error in errors] == [
        "truncated", "too_large", "bad_header", "duplicate_name", "metadata_too_large", "bad_layout",
        "wrong_names", "wrong_dtype", "wrong_shape", "not_finite",
    ]  # fmt: skip


def test_checking_a_good_file_finds_nothing(tmp_path):
    path = tmp_path / "update"
    path.write_bytes(wire.encode(WEIGHTS))

    wire.check_file(path, SPEC)

    assert weights_digest(wire.read_file(path, SPEC)) == weights_digest(WEIGHTS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_checking_a_file_finds_the_tensor_that_is_not_finite(value, tmp_path):
    path = tmp_path / "update"
    path.write_bytes(wire.encode(WEIGHTS | {"layer.bias": torch.tensor([0.0, value])}))

    with pytest.raises(wire.NotFinite, match=r"layer\.bias"):
        wire.check_file(path, SPEC)


def test_a_payload_may_be_64_kib_larger_than_its_tensors_and_their_entries_and_not_more():
    header = len(json.dumps(SMALL_HEADER))

    assert len(SMALL_DATA) + header + 64 * 1024 <= wire.max_size(SMALL_SPEC) <= len(SMALL_DATA) + 65 * 1024


def test_a_model_of_many_tensors_fits_its_own_limit():
    spec = {f"block{index}.attention.projection.weight": TensorSpec("F32", (1,)) for index in range(3_000)}

    assert len(wire.encode(numbers(spec))) <= wire.max_size(spec)


def test_no_weights_at_all_are_weights_too(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(wire.encode({}))

    assert wire.decode(wire.encode({}), {}) == {}
    assert wire.read_file(path, {}) == {}
