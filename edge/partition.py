"""How one set of examples is cut among devices for demos and simulation, so that every device cuts the same pieces.

Each device computes the whole cut from the seed and takes its own piece; nothing has to be agreed over the network.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Kind = Literal["iid", "dirichlet"]
Indices = npt.NDArray[np.int64]

MINIMUM_EXAMPLES = 10
"""A piece smaller than this is drawn again."""

MAXIMUM_DRAWS = 2_000
"""Draws after which a Dirichlet cut is called impossible."""

_HOW_TO_WRITE = (
    "write iid:INDEX/COUNT or dirichlet:ALPHA:INDEX/COUNT, and :SEED behind it if you like, "
    "for example dirichlet:0.3:0/5:7 for the first of five devices"
)


class PartitionError(Exception):
    """
    PartitionError
    ├── InvalidPartition      it says nothing that can be cut
    └── PartitionImpossible   these examples cannot be cut like this
    """


class InvalidPartition(PartitionError, ValueError):
    """A partition is malformed or out of range."""


class PartitionImpossible(PartitionError):
    """No draw gave every device enough examples."""


@dataclass(frozen=True)
class Partition:
    """One device's piece of a set of examples that `count` devices share.

    Attributes:
        kind: `iid` (equal pieces at random) or `dirichlet` (each class is shared out by a draw from Dirichlet(alpha)).
        index: which piece, from 0 to count - 1.
        count: how many pieces, at least 1.
        alpha: above 0; small values give each device few classes, large ones approach `iid`. Without meaning for `iid`.
        seed: from 0 to 2**32 - 1; all devices of one simulation share it.

    Raises:
        InvalidPartition: a value is out of its range.

    Hsu et al., Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification, 2019; the
    shares are drawn per class, as Yurochkin et al., Bayesian Nonparametric Federated Learning, ICML 2019, §4 do.
    """

    kind: Kind
    index: int
    count: int
    alpha: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InvalidPartition(f"{self.kind!r} is no kind of partition; there are {' and '.join(get_args(Kind))}")
        if self.count < 1:
            raise InvalidPartition(f"a partition has at least 1 piece, not {self.count}")
        if not 0 <= self.index < self.count:
            raise InvalidPartition(
                f"there is no piece {self.index}: {self.count} pieces are numbered 0 to {self.count - 1}"
            )
        if not 0 < self.alpha < float("inf"):
            raise InvalidPartition(f"alpha is a number above 0, not {self.alpha}")
        if not 0 <= self.seed < 2**32:
            raise InvalidPartition(f"a seed is a whole number from 0 to {2**32 - 1}, not {self.seed}")

    @classmethod
    def parse(cls, text: str) -> "Partition":
        """Read a partition as the command line writes it: `iid:0/5`, `iid:0/5:7`, `dirichlet:0.3:0/5:7`.

        Raises:
            InvalidPartition: the text says something else, or a value is out of its range.
        """
        kind, *fields = text.strip().split(":")
        alpha = fields.pop(0) if kind == "dirichlet" and fields else "0.3"
        if kind not in ("iid", "dirichlet") or not 1 <= len(fields) <= 2:
            raise InvalidPartition(f"{text!r} is no partition; {_HOW_TO_WRITE}")
        piece, seed = fields[0], fields[1] if len(fields) == 2 else "0"
        index, _slash, count = piece.partition("/")
        try:
            numbers = int(index), int(count), float(alpha), int(seed)
        except ValueError as error:
            raise InvalidPartition(f"{text!r} is no partition; {_HOW_TO_WRITE}") from error
        return cls("iid" if kind == "iid" else "dirichlet", *numbers)

    def __str__(self) -> str:
        kind = self.kind if self.kind == "iid" else f"dirichlet:{self.alpha}"
        return f"{kind}:{self.index}/{self.count}:{self.seed}"


def indices_for(labels: npt.ArrayLike, partition: Partition) -> Indices:
    """Give the indices of this partition's piece, ascending; the pieces of all indices cover the labels exactly once.

    Args:
        labels: (n,), the class of each example that may be handed out. The server's test split is not among them.

    Raises:
        PartitionImpossible: some device would have fewer than 10 examples.
    """
    classes = np.asarray(labels)
    if len(classes) < partition.count * MINIMUM_EXAMPLES:
        raise PartitionImpossible(
            f"{len(classes)} examples cannot be shared by {partition.count} devices with at least {MINIMUM_EXAMPLES} "
            f"each; take at most {len(classes) // MINIMUM_EXAMPLES} devices"
        )
    # RandomState, not Generator: its streams are frozen (NEP 19), so devices with other releases of numpy cut the same.
    random = np.random.RandomState(partition.seed)
    piece = _iid(classes, partition, random) if partition.kind == "iid" else _dirichlet(classes, partition, random)
    return np.sort(piece)


def split_off_test(labels: npt.ArrayLike, share: float, seed: int) -> tuple[Indices, Indices]:
    """Split examples once and for all into those for devices and the server's test split.

    Args:
        labels: (n,), the class of each example.
        share: part of each class that goes to the test split, in (0, 1), rounded to whole examples.

    Returns:
        The indices of the training examples and of the test examples, both ascending.
    """
    classes = np.asarray(labels)
    random = np.random.RandomState(seed)
    test = np.zeros(len(classes), dtype=bool)
    for members in _shuffled_classes(classes, random):
        test[members[: round(len(members) * share)]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)


def _iid(classes: npt.NDArray[np.generic], partition: Partition, random: np.random.RandomState) -> Indices:
    order = random.permutation(len(classes)).astype(np.int64)
    return np.array_split(order, partition.count)[partition.index]


def _dirichlet(classes: npt.NDArray[np.generic], partition: Partition, random: np.random.RandomState) -> Indices:
    members = _shuffled_classes(classes, random)
    cuts = _draw_cuts(np.array([len(indices) for indices in members]), partition, random)
    mine = cuts[:, partition.index : partition.index + 2]  # (classes, 2): from, to
    return np.concatenate([indices[start:end] for indices, (start, end) in zip(members, mine, strict=True)])


def _draw_cuts(sizes: Indices, partition: Partition, random: np.random.RandomState) -> Indices:
    """Draw until every device has enough: (classes, count + 1), where each class is cut."""
    for _ in range(MAXIMUM_DRAWS):
        shares = random.dirichlet(np.full(partition.count, partition.alpha), size=len(sizes))  # (classes, count)
        if not np.isfinite(shares).all():  # a tiny alpha underflows to 0/0
            continue
        ends = np.rint(np.cumsum(shares, axis=1) * sizes[:, None]).astype(np.int64)
        ends[:, -1] = sizes
        cuts = np.concatenate([np.zeros((len(sizes), 1), dtype=np.int64), ends], axis=1)
        if np.diff(cuts, axis=1).sum(axis=0).min() >= MINIMUM_EXAMPLES:
            return cuts
    raise PartitionImpossible(
        f"none of {MAXIMUM_DRAWS} draws of Dirichlet({partition.alpha}) gave each of {partition.count} devices "
        f"at least {MINIMUM_EXAMPLES} of {sizes.sum()} examples; take fewer devices or a greater alpha"
    )


def _shuffled_classes(classes: npt.NDArray[np.generic], random: np.random.RandomState) -> list[Indices]:
    return [random.permutation(np.flatnonzero(classes == label)).astype(np.int64) for label in np.unique(classes)]
