"""Kills its own server process once, by SIGKILL, at the moment that JOURNEY_CRASH_AT names.

The moments are noticed where anybody may listen: by the signal after a commit, by the storage, by the database's
wrappers. The product has no part in it.
"""

import itertools
import json
import os
import signal
from pathlib import Path

from django.apps import AppConfig
from django.db import connection
from django.db.backends.signals import connection_created

from fl.files import DurableFileSystemStorage
from fl.signals import event_recorded

ROUND = 2
"""The round in which it happens; in a new database it is also its row's number."""


def reach(point):
    """Die here, if this is the point and it has not happened yet."""
    if os.environ.get("JOURNEY_CRASH_AT") != point:
        return
    try:
        Path(os.environ["JOURNEY_MARK"]).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class CrashConfig(AppConfig):
    name = "tests.journeys.crash"
    label = "crash"

    def ready(self):
        event_recorded.connect(_after_commit)
        connection_created.connect(_watch_queries)


# ── after commits ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _after_commit(recorded, **_):
    data = json.loads(recorded.data)
    if data.get("round") != ROUND:
        return
    match recorded.event:
        case "fl_status_update":
            reach(f"{data['round_state']} committed")
        case "training_progress" if data["phase"] == "accepted":
            reach("update accepted")
        case "model_aggregation" if data["phase"] == "completed":
            reach("completed committed")


# ── while an update is stored: the second, so that the first was accepted before ──────────────────────────────────────

_asked_for = itertools.count(1)
_inserted = itertools.count(1)


def _watch_queries(connection, **_):
    if _query not in connection.execute_wrappers:
        connection.execute_wrappers.append(_query)


def _query(execute, sql, parameters, many, context):
    result = execute(sql, parameters, many, context)
    if sql.startswith('INSERT INTO "fl_update"') and _stored_in_round.get("now") and next(_inserted) == 2:
        reach("update stored, not committed")
    return result


_stored_in_round = {}


class CrashingStorage(DurableFileSystemStorage):
    """The server's storage, which looks at what is asked of it."""

    def path(self, name):
        if name.startswith("updates/") and connection.in_atomic_block:
            _stored_in_round["now"] = name.startswith(f"updates/{ROUND}/")
            if _stored_in_round["now"] and next(_asked_for) == 2:
                reach("update being stored")
        return super().path(name)

    # ── while a model is stored ───────────────────────────────────────────────────────────────────────────────────────

    _models = itertools.count()
    """The initial model is number 0, and the others have the numbers of their rounds."""

    def _save(self, name, content):
        if not name.startswith("models/"):
            return super()._save(name, content)
        if name.endswith(".state.safetensors"):
            saved = super()._save(name, content)
            self._reach("state saved")
            return saved
        self._number = next(self._models)
        saved = super()._save(name, _Halved(content, lambda: self._reach("model half written")))
        self._reach("model saved")
        return saved

    def _reach(self, point):
        if self._number == ROUND:
            reach(point)


class _Halved:
    """Content that comes in two chunks, with a moment in between."""

    def __init__(self, content, between):
        self._content = content
        self._between = between

    def chunks(self):
        data = b"".join(self._content.chunks())
        yield data[: len(data) // 2]
        self._between()
        yield data[len(data) // 2 :]
