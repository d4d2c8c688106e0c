"""A database that takes its time: queries that name run 777777 last as long as the test wants.

SCENARIO_HOLD    a file: while it is there, these queries do not begin
"""

import os
import threading
from pathlib import Path

from django.db.backends.signals import connection_created

from tests.scenarios.control import command

RUN = "777777"
LOOK_SECONDS = 0.01

_held = set()


def _hold(execute, sql, parameters, many, context):
    hold = os.environ.get("SCENARIO_HOLD")
    if hold and RUN in str(parameters):
        me = threading.get_ident()
        _held.add(me)
        while Path(hold).exists():
            threading.Event().wait(LOOK_SECONDS)
        _held.discard(me)
    return execute(sql, parameters, many, context)


def _watch(connection, **_):
    if _hold not in connection.execute_wrappers:
        connection.execute_wrappers.append(_hold)


connection_created.connect(_watch, dispatch_uid="queries that take their time")


@command("held")
def held():
    """Return how many threads are in a query that takes its time."""
    return len(_held)
