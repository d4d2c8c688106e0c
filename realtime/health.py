"""How what a server process stands on is: its database and its channel layer, each asked at this moment."""

import asyncio
from dataclasses import dataclass

from django.db import connection

from realtime.checks import layer_is_in_memory
from realtime.process import this_process
from realtime.publishing import loop_of_process
from realtime.watch import HEALTH_SECONDS, Echo

LOOP_SECONDS = 2.0
"""How long the process's loop may take to say something; one that ends meanwhile never does."""


@dataclass(frozen=True)
class Health:
    """What was reached.

    Attributes:
        layer: `ok`, `away`, or `in_memory` where the process needs none.
    """

    layer: str
    database: str = "ok"


def health() -> Health:
    """Ask the database and the channel layer.

    Raises:
        OperationalError: the database is away.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return Health(layer=layer())


def layer() -> str:
    """Say whether the channel layer carries: `ok`, `away`, or `in_memory` where the process needs none."""
    if layer_is_in_memory():
        return "in_memory"
    loop = loop_of_process()
    if loop is None:
        return "ok" if asyncio.run(_echoes()) else "away"
    try:
        carries = asyncio.run_coroutine_threadsafe(_carries(), loop).result(HEALTH_SECONDS + LOOP_SECONDS)
    except TimeoutError:
        return "away"
    return "ok" if carries else "away"


async def _carries() -> bool:
    return await this_process().watch.carries()


async def _echoes() -> bool:
    """Say whether the layer carries, for a process that serves no sockets."""
    echo = Echo()
    finding = await echo.listen(HEALTH_SECONDS)
    await echo.channel.stop()
    return finding.is_heard
