"""Weights that came from the server: a cache by digest, and the newest model of each run as a file to use.

Both are the same bytes on the disk: a model that is kept is a second name for the file in the cache, so that training
from a version and keeping it is one download.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge.errors import TaskUnusable
from edge.store import write_file
from edge.weights import Spec, Weights, WeightsError, weights_digest
from edge.wire import read_file

CACHED = 4
"""Sets of weights that are held; a device in two runs needs two, and two more while both move on."""


class KeptModel(msgspec.Struct, kw_only=True, frozen=True):
    """`models/run-<id>.json`: which model lies beside it; `digest` is over its weights, not over the file."""

    run: int
    task: str
    version: int
    digest: str
    file: str


class WeightsCache:
    """Weights by digest: verified once, then mapped; several devices of one process may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Weights] = OrderedDict()
        self._being_fetched: dict[str, threading.Lock] = {}

    def held(self, digest: str) -> Weights | None:
        """Return weights if they are at hand, without waiting; they are to be read only."""
        with self._lock:
            if digest in self._held:
                self._held.move_to_end(digest)
            return self._held.get(digest)

    def path(self, digest: str) -> Path:
        """Return where the file of these weights is, or would be."""
        return self._folder / f"{digest}.safetensors"

    def obtain(self, digest: str, spec: Spec, download: Callable[[Path], None]) -> Weights:
        """Return weights, having downloaded them if they are not here; who asks second waits for the first.

        Args:
            digest: what the weights must be.
            spec: names, shapes and dtypes that they must have.
            download: writes a file to the path given.

        Raises:
            TaskUnusable: what was downloaded is not that; and whatever `download` raises.
        """
        with self._lock:
            fetching = self._being_fetched.setdefault(digest, threading.Lock())
        with fetching:
            weights = self.held(digest) or self._on_disk(digest, spec) or self._download(digest, spec, download)
            self._hold(digest, weights)
        return weights

    def link(self, digest: str, target: Path) -> None:
        """Put the file of these weights in place under a second name, whole.

        Raises:
            FileNotFoundError: the weights are not here any more.
        """
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = target.with_name(f".{target.name}.partial")
        partial.unlink(missing_ok=True)
        os.link(self.path(digest), partial)
        partial.replace(target)

    def _on_disk(self, digest: str, spec: Spec) -> Weights | None:
        path = self.path(digest)
        if not path.exists():
            return None
        try:
            return _read(path, digest, spec)
        except TaskUnusable:
            # Torn by a power failure, perhaps: it is not synced, since it can be had again.
            path.unlink(missing_ok=True)
            return None

    def _download(self, digest: str, spec: Spec, download: Callable[[Path], None]) -> Weights:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = self._folder / f".{digest}.{os.getpid()}.partial"
        try:
            download(partial)
            weights = _read(partial, digest, spec)
            # Tensors are mapped from this file and models are second names of it: nobody may write into it.
            partial.chmod(0o400)
            partial.replace(self.path(digest))
        finally:
            partial.unlink(missing_ok=True)
        return weights

    def _hold(self, digest: str, weights: Weights) -> None:
        with self._lock:
            self._being_fetched.pop(digest, None)
            self._held[digest] = weights
            self._held.move_to_end(digest)
            while len(self._held) > CACHED:
                self._held.popitem(last=False)
            keep = {self.path(held).name for held in self._held}
        files = [path for path in self._folder.glob("*.safetensors") if path.name not in keep]
        for path in sorted(files, key=_age)[: max(0, len(files) + len(keep) - CACHED)]:
            # Tensors that are still mapped keep their pages: a name goes, not the bytes.
            path.unlink(missing_ok=True)


class ModelShelf:
    """The newest model of each run: `run-<id>.safetensors`, and `run-<id>.json` that says what it is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def kept(self, run_id: int) -> KeptModel | None:
        """Tell which model of a run is here, if any."""
        path = self._folder / f"run-{run_id}.json"
        try:
            model = msgspec.json.decode(path.read_bytes(), type=KeptModel)
        except (FileNotFoundError, msgspec.DecodeError):
            # Not written durably, since it can be had again: a torn one is as good as none.
            return None
        return model if (self._folder / model.file).exists() else None

    def keep(self, cache: WeightsCache, *, run_id: int, task: str, version: int, digest: str) -> Path:
        """Replace the model of a run by one that is in the cache; a reader sees the old file or the new one, whole.

        Raises:
            FileNotFoundError: the weights are not in the cache any more.
        """
        target = self._folder / f"run-{run_id}.safetensors"
        cache.link(digest, target)
        model = KeptModel(run=run_id, task=task, version=version, digest=digest, file=target.name)
        text = msgspec.json.format(msgspec.json.encode(model), indent=2) + b"\n"
        write_file(target.with_suffix(".json"), text, durable=False)
        return target


def _read(path: Path, digest: str, spec: Spec) -> Weights:
    try:
        weights = read_file(path, spec)
    except WeightsError as error:
        raise TaskUnusable("The weights from the server are not taken", str(error)) from error
    if weights_digest(weights) != digest:
        raise TaskUnusable("The weights from the server are not taken", f"their digest is not {digest}")
    return weights


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
