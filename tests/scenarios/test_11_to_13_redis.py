"""Redis dies, forgets everything, or forgets who does not come again: the sockets stay, and nothing is missing."""

import time

import redis

from fl.models import Event, Stream
from tests.fl.threads import eventually
from tests.scenarios.crowd import Crowd
from tests.scenarios.memory import MB, Level
from tests.scenarios.table import scenario

POLL_SECONDS = 0.5
AWAY_SECONDS = 10 * POLL_SECONDS
SLACK_SECONDS = 2.5
"""What a machine that others use too may add to an interval."""
NO_REDIS = {"memory": "there is no Redis"}
READERS = 15


class Telling:
    """Lets something happen again and again, and takes note of how long each time took until all knew."""

    def __init__(self, server, *crowds):
        self.server, self.crowds = server, crowds
        self.count = 0
        self.longest = 0.0

    def tell(self):
        """Record one event, and wait until everybody has it."""
        self.count += 1
        began = time.monotonic()
        self.server.ask("record", stream="system", count=1, size=300, first=self.count)
        head = Stream.objects.get(pk="system").head
        for crowd in self.crowds:
            crowd.wait_for("system", head)
        self.longest = max(self.longest, time.monotonic() - began)

    def tell_for(self, seconds):
        """Go on for so long; return how long the slowest took."""
        self.longest = 0.0
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.tell()
        return self.longest

    def tell_until(self, claim):
        """Go on until something has come about."""
        give_up = time.monotonic() + 60
        while not claim():
            assert time.monotonic() < give_up, "it never came to be"
            self.tell()


def told(code):
    """Return how often the servers told of the layer with this code."""
    return Event.objects.filter(stream="system", data__contains=f'"code":"{code}"').count()


@scenario(11, "Redis is away for ten polls: no socket ends, all is told, once of it", own_redis=True, na=NO_REDIS)
def test_while_redis_is_away_all_is_told_by_the_log_and_one_process_says_so_once(stand):
    patience = {"QFLARE_POLL_SECONDS": str(POLL_SECONDS), "QFLARE_LAYER_PATIENCE_SECONDS": "1"}
    servers = [stand.start(name, **patience) for name in ("anna", "berta")]
    cookie = stand.cookie()
    crowds = [Crowd(server, READERS, cookie=cookie) for server in servers]
    telling = Telling(servers[0], *crowds)
    telling.tell_for(1)
    levels = [Level(server) for server in servers]

    stand.redis.stop()
    slowest = telling.tell_for(AWAY_SECONDS)
    assert told("layer_away") == 1
    stand.redis.start()
    telling.tell_until(lambda: told("layer_back"))
    telling.tell_for(1)

    assert slowest < POLL_SECONDS + SLACK_SECONDS
    for crowd in crowds:
        crowd.assert_exact()
        assert not crowd.ends
    assert (told("layer_away"), told("layer_back")) == (1, 1)
    assert all(level.growth < 10 * MB for level in levels)
    for server in servers:
        # One line of channels_redis, which says it each second.
        assert server.log.count("channels_redis.pubsub") == 1


@scenario(12, "Redis forgets all: groups are joined again, all is told", core=True, own_redis=True, na=NO_REDIS)
def test_groups_that_redis_forgot_are_joined_again_and_what_was_missed_is_found(stand):
    """The log is looked at so seldom that only the layer can have brought what comes, and the gap before it."""
    server = stand.start(QFLARE_POLL_SECONDS="60", QFLARE_REJOIN_SECONDS="1")
    crowd = Crowd(server, READERS, cookie=stand.cookie())
    telling = Telling(server, crowd)
    telling.tell()

    with redis.Redis.from_url(stand.redis.url) as client:
        client.flushall()
    server.ask("record", stream="system", count=20, first=1000)
    began = time.monotonic()
    eventually(lambda: has_members(stand, "dashboard"))

    assert time.monotonic() - began < 1 + SLACK_SECONDS
    assert telling.tell_for(1) < SLACK_SECONDS
    crowd.assert_exact()
    assert not crowd.ends
    assert {str(number) for number in range(1000, 1020)} <= set(crowd.titles("system").values())


@scenario(13, "a hub older than the group expiry still hears", core=True, own_redis=True, na=NO_REDIS)
def test_a_hub_that_is_older_than_members_are_remembered_still_hears(stand):
    server = stand.start(QFLARE_POLL_SECONDS="60", QFLARE_REJOIN_SECONDS="1", QFLARE_GROUP_EXPIRY_SECONDS="3")
    crowd = Crowd(server, READERS, cookie=stand.cookie())
    joined = time.monotonic()
    # The layer counts whole seconds; nothing is said meanwhile, since being heard does not make a member younger.
    eventually(lambda: time.monotonic() - joined > 5)

    slowest = Telling(server, crowd).tell_for(1)

    assert slowest < SLACK_SECONDS
    crowd.assert_exact()
    assert not crowd.ends


def has_members(stand, group):
    """Return whether a group has members, wherever the layer keeps them."""
    with redis.Redis.from_url(stand.redis.url) as client:
        if stand.layer == "core":
            return client.zcard(f"{stand.prefix}:group:{group}") > 0
        return client.pubsub_numsub(f"{stand.prefix}__group__{group}")[0][1] > 0
