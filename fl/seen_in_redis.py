"""How far streams were seen, kept in Redis as well, where there is one: for servers that do not share a data folder.

It is one more witness and no more than that. A Redis that is away, or has forgotten, is done without: nothing waits for
it longer than a moment, and what it did not hear it is told later.
"""

import functools
import logging
import time
from collections.abc import Mapping
from typing import Any, cast

from django.conf import settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from edge.protocol.server import Position

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 1.0
PAUSE_SECONDS = 10.0
"""After so long a Redis that was away is asked again; until then it costs nobody any time."""

# Only upwards within one history: a process that read its heads earlier must not take back what another has seen since.
_RAISE = """
for i = 1, #ARGV, 3 do
    local kept = redis.call('HGET', KEYS[1], ARGV[i]) or ''
    local epoch, seq = string.match(kept, '^(%S+) (%d+)$')
    if epoch ~= ARGV[i + 1] or tonumber(seq) < tonumber(ARGV[i + 2]) then
        redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2])
    end
end
"""

_away_since: float | None = None


def read() -> dict[str, Position] | None:
    """Return how far each stream was seen; None where there is no Redis, or it is away."""
    if not _is_worth_asking():
        return None
    try:
        kept = cast("dict[bytes, bytes]", _redis(settings.REDIS_URL).hgetall(key()))
    except (RedisError, OSError) as error:
        _be_away(error)
        return None
    _be_back()
    return {name.decode(): position for name, text in kept.items() if (position := _position(text)) is not None}


def write(heads: Mapping[str, Position], seen: Mapping[str, Position]) -> None:
    """Keep these heads where they differ from what was seen, and forget streams that are no more."""
    changed = {name: position for name, position in heads.items() if seen.get(name) != position}
    gone = seen.keys() - heads.keys()
    arguments = [text for name, at in changed.items() for text in (name, at.epoch, str(at.seq))]
    try:
        redis = _redis(settings.REDIS_URL)
        if arguments:
            redis.eval(_RAISE, 1, key(), *arguments)
        if gone:
            redis.hdel(key(), *gone)
    except (RedisError, OSError) as error:
        _be_away(error)


def key() -> str:
    """Return where this installation's heads are kept: others may use the same Redis."""
    return f"{settings.QFLARE_REDIS_PREFIX}:seen-heads"


@functools.cache
def _redis(url: str) -> Any:
    # A connection that a restart of Redis has ended is found by the first command, so that one is tried once more.
    return Redis.from_url(
        url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS, retry=Retry(NoBackoff(), 1)
    )


def _position(text: bytes) -> Position | None:
    epoch, _, seq = text.decode(errors="replace").partition(" ")
    return Position(epoch=epoch, seq=int(seq)) if seq.isdecimal() else None


def _is_worth_asking() -> bool:
    return bool(settings.REDIS_URL) and (_away_since is None or time.monotonic() - _away_since >= PAUSE_SECONDS)


def _be_away(error: Exception) -> None:
    global _away_since
    if _away_since is None:
        logger.warning("Redis does not say how far streams were seen: %s: %s", type(error).__name__, error)
    _away_since = time.monotonic()


def _be_back() -> None:
    global _away_since
    _away_since = None
