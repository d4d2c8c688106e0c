"""How a device's own arrays are read: numpy's npz, never with pickled objects inside."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.tasks.errors import DataMissing, DataUnreadable

Array = npt.NDArray[np.generic]


def read_npz(path: Path) -> tuple[Array, Array]:
    """Read the arrays `x` (n, ...) and `y` (n,) of an npz file.

    Raises:
        DataMissing: there is no such file.
        DataUnreadable: it is no npz file, holds other arrays, objects, nothing, or more of one than of the other.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            x, y = arrays["x"], arrays["y"]
    except FileNotFoundError as error:
        raise DataMissing(path, "it is made by numpy.savez(path, x=inputs, y=targets)") from error
    except Exception as error:  # a damaged file makes numpy, zipfile, zlib and tokenize raise a dozen kinds
        raise DataUnreadable(path, f"it is no npz file with the arrays x and y ({error})") from error
    if y.ndim != 1 or x.ndim < 1 or len(x) != len(y) or not len(y):
        raise DataUnreadable(
            path, f"x is {x.shape} and y is {y.shape}; they hold at least one example, as many in both"
        )
    return x, y
