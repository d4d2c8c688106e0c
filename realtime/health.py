"""How what a server process stands on is: its database and its channel layer, each asked at this moment."""

import logging
from dataclasses import dataclass

from django.db import connection

from realtime.checks import layer_is_in_memory
from realtime.publishing import try_layer

logger = logging.getLogger(__name__)


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
    return Health(layer=_layer())


def _layer() -> str:
    if layer_is_in_memory():
        return "in_memory"
    try:
        try_layer()
    except Exception as error:
        logger.warning("asked how it is, the channel layer could not be sent to: %s: %s", type(error).__name__, error)
        return "away"
    return "ok"
