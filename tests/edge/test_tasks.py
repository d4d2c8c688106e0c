"""The tasks that come with the package, and their data."""

import gzip
import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.partition import Partition
from edge.tasks import (
    TASKS,
    DataMissing,
    DataSource,
    DataUnreadable,
    InvalidSettings,
    TrainingSettings,
    UnknownTask,
    available_tasks,
    find_task,
    initial_weights,
    missing_support,
    task_digest,
    task_spec,
)
from edge.tasks.digits import Digits
from edge.tasks.fashion_mnist import DEBIAN_FOLDER, FashionMnist
from edge.tasks.linear import OFFSET, SLOPES, Linear
from edge.training import evaluate
from edge.weights import TensorSpec, weights_digest
from tests.services.programs import give_up

EVERYTHING = DataSource()
ROOT = Path(__file__).parents[2]
BUILT_IN = ROOT / "edge" / "tasks" / "data" / "digits.npz"


def rows(examples):
    return {row.numpy().tobytes() for row in examples.inputs}


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={"PATH": "", **environment}, capture_output=True, text=True, check=False
    )


# Every task


@pytest.mark.parametrize("name", ["digits", "digits-cnn", "linear"])
def test_devices_never_see_an_example_of_the_test_split(name):
    task = find_task(name)
    test = rows(task.test_examples())

    pieces = [
        rows(task.training_examples(DataSource(partition=Partition("dirichlet", index, 5)))) for index in range(5)
    ]

    assert not test & rows(task.training_examples(EVERYTHING))
    assert all(not test & piece for piece in pieces)


@pytest.mark.parametrize("name", ["digits", "digits-cnn", "linear"])
@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_the_pieces_of_all_devices_are_the_whole(name, kind):
    task = find_task(name)

    pieces = [task.training_examples(DataSource(partition=Partition(kind, index, 7))) for index in range(7)]

    together = torch.cat([piece.inputs for piece in pieces])
    whole = task.training_examples(EVERYTHING).inputs
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, whole.tolist()))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_initial_weights_come_from_their_seed_alone(name):
    task = find_task(name)
    torch.manual_seed(5)
    undisturbed = torch.rand(3)

    torch.manual_seed(5)
    first = initial_weights(task, 1)
    disturbed = torch.rand(3)
    torch.rand(100)

    assert torch.equal(undisturbed, disturbed)
    assert weights_digest(initial_weights(task, 1)) == weights_digest(first)
    assert weights_digest(initial_weights(task, 2)) != weights_digest(first)


def test_the_digest_of_a_task_tells_models_apart():
    digests = {name: task_digest(find_task(name)) for name in TASKS}

    assert len(set(digests.values())) == len(TASKS)
    assert all(task_digest(find_task(name)) == digest for name, digest in digests.items())


def test_a_task_says_what_its_weights_are():
    assert task_spec(Linear()) == {"weight": TensorSpec("F32", (1, 4)), "bias": TensorSpec("F32", (1,))}


def test_an_unknown_task_is_answered_with_those_there_are():
    with pytest.raises(UnknownTask, match="digits, digits-cnn, fashion-mnist, linear") as caught:
        find_task("digit")

    assert caught.value.name == "digit"
    assert set(TASKS) <= set(available_tasks()) == set(caught.value.known)


def test_the_package_s_own_tasks_support_the_proximal_term_and_nothing_unheard_of():
    assert missing_support(find_task("digits"), {"proximal"}) == frozenset()
    assert missing_support(find_task("digits"), {"proximal", "telepathy"}) == {"telepathy"}


def test_listing_the_tasks_does_not_load_torch():
    code = "import sys, edge.tasks; edge.tasks.available_tasks(); print('torch' in sys.modules)"

    done = run_python(code, PYTHONPATH=str(ROOT))

    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize(
    "wrong",
    [
        {"local_epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"proximal_mu": -0.1},
        {"seed": -1},
        {"seed": 2**64},
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(InvalidSettings, match=next(iter(wrong))):
        TrainingSettings(**{"local_epochs": 1, "batch_size": 8, "learning_rate": 0.1, **wrong})


# digits


def test_the_digits_are_the_1797_real_ones():
    with np.load(BUILT_IN, allow_pickle=False) as arrays:
        x, y = arrays["x"], arrays["y"]

    assert x.shape == (1797, 64)
    assert hashlib.sha256(x.tobytes()).hexdigest() == "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    assert hashlib.sha256(y.tobytes()).hexdigest() == "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_test_split_of_the_digits_is_stratified_and_fixed_for_ever():
    test = Digits().test_examples()

    whole = Digits().training_examples(EVERYTHING)

    assert (len(whole), len(test)) == (1438, 359)
    assert torch.bincount(test.targets).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert hashlib.sha256(test.inputs.numpy().tobytes()).hexdigest() == (
        "44e3cea3f071a4d2b38655d132c7324e6c38dff0281b2953f2cfad0ab4fa5b37"
    )


def test_pixels_go_from_0_to_1():
    inputs = Digits().training_examples(EVERYTHING).inputs

    assert inputs.dtype == torch.float32
    assert (inputs.min(), inputs.max()) == (0, 1)


def test_the_convolutional_network_has_about_14000_parameters():
    weights = initial_weights(find_task("digits-cnn"), 0)

    assert sum(tensor.numel() for tensor in weights.values()) == 14_074


@pytest.mark.parametrize("shape", [(30, 64), (30, 8, 8)])
def test_a_device_brings_digits_of_its_own_in_its_folder(tmp_path, shape):
    np.savez(tmp_path / "digits.npz", x=np.full(shape, 8), y=np.arange(30) % 10)

    whole = Digits().training_examples(DataSource(folder=tmp_path))
    piece = Digits().training_examples(DataSource(folder=tmp_path, partition=Partition("iid", 0, 3)))

    assert whole.inputs.shape == (30, 64)
    assert whole.inputs.unique().tolist() == [0.5]
    assert whole.targets.tolist() == [*range(10)] * 3
    assert len(piece) == 10


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"x": np.zeros((3, 64))}, "y is not a file|arrays x and y"),
        ({"x": np.zeros((3, 64)), "y": np.zeros(2, dtype=int)}, "as many in both"),
        ({"x": np.zeros((0, 64)), "y": np.zeros(0, dtype=int)}, "at least one example"),
        ({"x": np.zeros(()), "y": np.zeros(1, dtype=int)}, "as many in both"),
        ({"x": np.zeros((3, 63)), "y": np.zeros(3, dtype=int)}, r"here it is \(3, 63\)"),
        ({"x": np.full((3, 64), 17), "y": np.zeros(3, dtype=int)}, "from 0 to 16"),
        ({"x": np.full((3, 64), np.nan), "y": np.zeros(3, dtype=int)}, "from 0 to 16"),
        ({"x": np.full((3, 64), "a"), "y": np.zeros(3, dtype=int)}, "from 0 to 16"),
        ({"x": np.zeros((3, 64)), "y": np.full(3, 10)}, "from 0 to 9"),
        ({"x": np.zeros((3, 64)), "y": np.full(3, 1.5)}, "whole numbers"),
        ({"x": np.full((3, 64), None), "y": np.zeros(3, dtype=int)}, "Object arrays cannot be loaded"),
    ],
)
def test_digits_that_are_something_else_are_refused_with_the_reason(tmp_path, arrays, why):
    np.savez(tmp_path / "digits.npz", **arrays)

    with pytest.raises(DataUnreadable, match=why):
        Digits().training_examples(DataSource(folder=tmp_path))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello", b"\x93NUMPY"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "digits.npz").write_bytes(content)

    with pytest.raises(DataUnreadable, match="no npz file"):
        Digits().training_examples(DataSource(folder=tmp_path))


@pytest.mark.parametrize("place", [5_000, 20_000, 40_000])
def test_a_damaged_npz_is_refused(tmp_path, place):
    damaged = bytearray(BUILT_IN.read_bytes())
    damaged[place : place + 50] = bytes(50)
    (tmp_path / "digits.npz").write_bytes(damaged)

    with pytest.raises(DataUnreadable, match="no npz file"):
        Digits().training_examples(DataSource(folder=tmp_path))


def test_a_single_array_is_no_npz(tmp_path):
    with (tmp_path / "digits.npz").open("wb") as file:
        np.save(file, np.zeros((3, 64)))

    with pytest.raises(DataUnreadable, match="no npz file"):
        Digits().training_examples(DataSource(folder=tmp_path))


def test_a_folder_without_digits_says_how_to_make_them(tmp_path):
    with pytest.raises(DataMissing, match=r"digits.npz is not there; .* numpy.savez"):
        Digits().training_examples(DataSource(folder=tmp_path))


# linear


def test_the_line_that_the_points_were_made_by_fits_them():
    weights = {"weight": torch.tensor([SLOPES]), "bias": torch.tensor([OFFSET])}

    measured = evaluate(Linear(), weights, Linear().test_examples())

    assert measured["loss"] < 0.01
    assert measured["accuracy"] == 1.0


def test_any_number_of_devices_can_share_the_line():
    sizes = [
        len(Linear().training_examples(DataSource(partition=Partition("iid", index, 500)))) for index in (0, 250, 499)
    ]

    assert sizes == [16, 16, 16]


def test_dirichlet_gives_devices_points_from_different_heights():
    means = [
        Linear().training_examples(DataSource(partition=Partition("dirichlet", index, 5, 0.1))).targets.mean().item()
        for index in range(5)
    ]

    assert max(means) - min(means) > 3


def test_a_device_brings_points_of_its_own(tmp_path):
    np.savez(tmp_path / "linear.npz", x=np.ones((12, 4)), y=np.arange(12))

    examples = Linear().training_examples(DataSource(folder=tmp_path))

    assert examples.inputs.dtype == examples.targets.dtype == torch.float32
    assert examples.targets.tolist() == [*range(12)]


@pytest.mark.parametrize(
    ("x", "why"), [(np.ones((12, 3)), "x is \\(n, 4\\)"), (np.full((12, 4), np.inf), "not finite")]
)
def test_points_that_are_something_else_are_refused_with_the_reason(tmp_path, x, why):
    np.savez(tmp_path / "linear.npz", x=x, y=np.arange(12))

    with pytest.raises(DataUnreadable, match=why):
        Linear().training_examples(DataSource(folder=tmp_path))


# fashion-mnist


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_pictures(folder, split="train", count=20, packed=False):
    labels = (np.arange(count) % 10).astype(np.uint8)
    images = np.repeat(labels * 25, 28 * 28).reshape(count, 28, 28).astype(np.uint8)
    for name, array in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", labels)):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))


@pytest.mark.parametrize("packed", [False, True])
def test_pictures_are_read_from_any_folder_packed_or_not(tmp_path, packed):
    write_pictures(tmp_path, packed=packed)

    examples = FashionMnist().training_examples(DataSource(folder=tmp_path))
    piece = FashionMnist().training_examples(DataSource(folder=tmp_path, partition=Partition("iid", 1, 2)))

    assert examples.inputs.shape == (20, 784)
    assert examples.targets.tolist() == [*range(10)] * 2
    assert examples.inputs[:, 0].tolist() == [label * 25 for label in examples.targets.tolist()]
    assert len(piece) == 10


def test_one_reader_cannot_change_the_pictures_of_another(tmp_path):
    write_pictures(tmp_path)

    FashionMnist().training_examples(DataSource(folder=tmp_path)).inputs.fill_(255)

    assert FashionMnist().training_examples(DataSource(folder=tmp_path)).inputs[0, 0] == 0


def test_pictures_are_scaled_to_0_to_1_for_the_model():
    assert FashionMnist().prepare(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])


def test_a_folder_without_pictures_says_what_to_install(tmp_path):
    with pytest.raises(DataMissing, match="apt-get install dataset-fashion-mnist"):
        FashionMnist().training_examples(DataSource(folder=tmp_path))


def test_a_server_without_pictures_does_not_evaluate(tmp_path):
    code = "from edge.tasks import find_task; print(find_task('fashion-mnist').test_examples())"

    done = run_python(code, PYTHONPATH=str(ROOT), QFLARE_FASHION_MNIST=str(tmp_path))

    assert (done.stdout, done.stderr) == ("None\n", "")


def test_a_server_s_folder_of_pictures_is_a_setting(tmp_path):
    write_pictures(tmp_path, split="t10k", count=30)
    code = "from edge.tasks import find_task; print(len(find_task('fashion-mnist').test_examples()))"

    done = run_python(code, PYTHONPATH=str(ROOT), QFLARE_FASHION_MNIST=str(tmp_path))

    assert (done.stdout, done.stderr) == ("30\n", "")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("train-images-idx3-ubyte", b"", "no idx file"),
        ("train-images-idx3-ubyte", b"\x00\x00\x0d\x03" + bytes(12), "no idx file of unsigned bytes"),
        ("train-images-idx3-ubyte", b"\x00\x00\x08\x03\x00\x00", "bytes follow"),
        ("train-images-idx3-ubyte", idx(np.zeros((20, 28, 28), np.uint8))[:-1], r"\(20, 28, 28\), but 15679 bytes"),
        ("train-images-idx3-ubyte", idx(np.zeros((20, 28, 28), np.uint8)) + b"0", r"\(20, 28, 28\), but 15681 bytes"),
        ("train-images-idx3-ubyte", b"\x00\x00\x08\x03" + b"\xff" * 12, "but 0 bytes follow"),
        ("train-images-idx3-ubyte", idx(np.zeros((20, 27, 28), np.uint8)), r"not \(n, 28, 28\)"),
        ("train-images-idx3-ubyte", idx(np.zeros((0, 28, 28), np.uint8)), "n above 0"),
        ("train-labels-idx1-ubyte", idx(np.zeros(19, np.uint8)), "20 labels"),
        ("train-labels-idx1-ubyte", idx(np.full(20, 10, np.uint8)), "labels from 0 to 9"),
    ],
)
def test_pictures_that_are_something_else_are_refused_with_the_reason(tmp_path, name, content, why):
    write_pictures(tmp_path)
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataUnreadable, match=why):
        FashionMnist().training_examples(DataSource(folder=tmp_path))


def test_a_packed_file_cut_short_is_refused(tmp_path):
    write_pictures(tmp_path, packed=True)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-9])

    with pytest.raises(DataUnreadable, match="cannot be read"):
        FashionMnist().training_examples(DataSource(folder=tmp_path))


def test_debian_s_pictures_are_the_real_ones():
    if not DEBIAN_FOLDER.is_dir():
        give_up(
            "the real pictures are missing: apt-get install dataset-fashion-mnist",
            in_continuous_integration=os.environ.get("CI") == "true",
        )

    training, test = FashionMnist().training_examples(EVERYTHING), FashionMnist().test_examples()

    assert torch.bincount(training.targets).tolist() == [6_000] * 10
    assert torch.bincount(test.targets).tolist() == [1_000] * 10
    assert hashlib.sha256(training.inputs.numpy()).hexdigest() == (
        "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012"
    )
    assert hashlib.sha256(test.inputs.numpy()).hexdigest() == (
        "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a"
    )
