"""Whatever is recorded, by whom and however much, is told to everybody once and in order; what is undone, to nobody."""

import random
import threading

import httpx

from fl.models import Event, Stream
from tests.fl.threads import Call, eventually
from tests.scenarios.crowd import Crowd
from tests.scenarios.table import SEED, scenario

ONLY_BY_THE_LAYER = {"QFLARE_POLL_SECONDS": "60"}
"""The log is not asked for news, so that whatever comes has come by the layer, or since a gap was noticed."""
MANY = {"QFLARE_MAX_CONNECTIONS_PER_USER": "1000"}
BURST, CLIENTS = 10_000, 50
BEFORE, FIRST = 20, 200


def head():
    """Return how many events `system` has."""
    return Stream.objects.get(name="system").head


@scenario(1, "ten thousand events of one transaction reach fifty dashboards, each once and in order")
def test_ten_thousand_events_of_one_transaction_reach_everybody_in_order_and_once(stand):
    server = stand.start()
    crowd = Crowd(server, CLIENTS, cookie=stand.cookie())

    server.ask("record", count=BURST)
    crowd.wait_for("system", BURST)

    crowd.assert_exact()
    assert crowd.titles("system") == {n: str(n) for n in range(1, BURST + 1)}
    assert server.ask("counts")["dashboard"] == CLIENTS


@scenario(2, "what the layer lost, since the loop stood still, is noticed and read from the log", core=True)
def test_what_did_not_fit_into_the_layer_while_the_loop_stood_still_is_read_from_the_log(stand):
    """On each layer more comes than it takes: on the memory layer and, while the receiver stands still, on Redis core
    than a channel holds, on Redis pub/sub than may wait to be sent; and the log is never asked for news."""
    # In memory a channel holds 20 of 50 that are sent in a turn. On pub/sub only the newest is sent of all that wait.
    kept, most = {"memory": (20, BURST // 2), "pubsub": (BURST, 1000), "core": (100, FIRST)}[stand.layer]
    few = {} if stand.layer == "pubsub" else {"SCENARIO_CAPACITY": str(kept)}
    waiting = {"QFLARE_LAYER_WAITING": "100000"} if stand.layer == "memory" else {}
    server = stand.start(**ONLY_BY_THE_LAYER, **few, **waiting)
    recorder = stand.start("bert", **few, **waiting) if stand.layer == "core" else server
    crowd = Crowd(server, 10, cookie=stand.cookie())
    recorder.ask("record", count=BEFORE)
    crowd.wait_for("system", BEFORE)
    assert server.ask("handed_out") == {"layer": BEFORE}

    server.ask("hold_loop")
    for count, first in ((FIRST, BEFORE + 1), (BURST - FIRST, BEFORE + FIRST + 1)):
        recorder.ask("record", count=count, first=first)
        if recorder is not server:  # else the channel would be emptied while it is still filled
            eventually(lambda: recorder.ask("has_sent"))
    server.ask("let_go_of_loop")
    eventually(lambda: recorder.ask("has_sent"))
    crowd.wait_for("system", BEFORE + kept)
    # There is room again for the next, which shows the gap.
    eventually(lambda: server.remains()["passing"]["messages in the layer"] == 0)
    recorder.ask("record", count=1, first=BURST + BEFORE + 1)
    crowd.wait_for("system", BURST + BEFORE + 1)

    crowd.assert_exact()
    assert crowd.titles("system") == {n: str(n) for n in range(1, BURST + BEFORE + 2)}
    handed_out = server.ask("handed_out")
    assert sum(handed_out.values()) == BURST + BEFORE + 1
    assert handed_out["log"] >= BURST - most


@scenario(3, "a hundred clients that are cut twenty times each miss nothing, while some transactions are undone")
def test_in_a_storm_of_cut_connections_nobody_misses_anything_or_hears_of_what_was_undone(stand):
    chance = random.Random(SEED)
    server = stand.start(**MANY)
    crowd = Crowd(server, 100, cookie=stand.cookie())
    is_over = threading.Event()

    def publish(writer):
        kept = []
        for turn in range(10_000):
            kept += server.ask("record_at_random", seed=SEED * 100 + writer * 10_000 + turn, tries=5)
            if is_over.wait(0.2):
                return kept
        raise AssertionError("the storm never ended")

    writers = [Call(lambda number=number: publish(number)) for number in range(4)]
    cuts = 0
    while cuts < 20 * 100:
        cuts += crowd.cut(chance, 0.5)
        # Some are cut again before they are in.
        crowd.wait_until(lambda: sum(client.is_let_in for client in crowd.clients) >= 80, "too few were let in")
    is_over.set()
    kept = [writer.result() for writer in writers]
    crowd.wait_for("system", head())

    crowd.assert_exact()
    told = [title for _, title in sorted(crowd.titles("system").items())]
    assert sorted(told) == sorted(title for titles in kept for title in titles)
    for titles in kept:
        ours = set(titles)
        assert [title for title in told if title in ours] == titles
    assert crowd.resumed > 1000


@scenario(4, "two hundred clients that come while events do find neither a hole nor a duplicate at the seam")
def test_whoever_comes_while_events_do_finds_no_seam(stand):
    server = stand.start(**MANY)
    cookie = stand.cookie()
    is_over = threading.Event()

    def publish():
        number = 0
        while not is_over.is_set():
            server.ask("record", count=3, first=number + 1)
            number += 3
        return number

    writer = Call(publish)
    crowds = []
    for wave in range(4):
        crowds.append(Crowd(server, 50, cookie=cookie))
        crowds[-1].wait_for("system", 100 * (wave + 1))
    is_over.set()
    total = writer.result()

    for crowd in crowds:
        crowd.wait_for("system", total)
        crowd.assert_exact()
        assert all(int(title) == seq for seq, title in crowd.titles("system").items())


@scenario(5, "events of plain threads, views of both kinds and other processes arrive")
def test_whoever_records_is_heard_in_his_own_process_by_the_layer_alone(stand):
    server = stand.start(**ONLY_BY_THE_LAYER)
    crowd = Crowd(server, 3, cookie=stand.cookie())

    server.ask("record_in_plain_thread", title="plain thread")
    crowd.wait_for("system", 1)
    for seq, kind in enumerate(("sync", "async"), start=2):
        assert httpx.get(f"{server.url}/{kind}/{kind} view/", trust_env=False, timeout=60).status_code == 200
        crowd.wait_for("system", seq)
    assert server.ask("log_reads") == {}
    # Without a layer that all processes hear, the log is asked for news.
    other = stand.start("bert") if stand.layer == "memory" else server
    watching = Crowd(other, 3, cookie=stand.cookie())
    code = "from tests.scenarios.acts_publishing import record_one; record_one('management command')"
    server.manage("shell", "-v0", "-c", code)
    watching.wait_for("system", 4)

    watching.assert_exact()
    assert watching.titles("system") == {1: "plain thread", 2: "sync view", 3: "async view", 4: "management command"}


@scenario(6, "of what was rolled back nobody hears; what others' handlers raise keeps nothing back")
def test_what_is_undone_is_told_to_nobody_and_what_others_raise_keeps_nothing_back(stand):
    server = stand.start()
    crowd = Crowd(server, 3, cookie=stand.cookie())

    server.ask("record_and_fail", title="undone from outside")
    server.ask("record_nested", outer="outer", undone="undone inside", inner="inner")
    crowd.wait_for("system", 2)
    assert server.ask("record_beside_a_handler_that_raises", title="before it", first=False) == "raised"
    crowd.wait_for("system", 3)
    # A handler that raises first keeps Django from calling ours: then the log is asked.
    assert server.ask("record_beside_a_handler_that_raises", title="after it", first=True) == "raised"
    crowd.wait_for("system", 4)
    server.ask("record_in_plain_thread", title="the last")
    crowd.wait_for("system", 5)

    crowd.assert_exact()
    assert crowd.titles("system") == {1: "outer", 2: "inner", 3: "before it", 4: "after it", 5: "the last"}
    assert Event.objects.count() == 5
