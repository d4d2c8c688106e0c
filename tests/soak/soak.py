"""One soak from its beginning to its end."""

import contextlib
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from tests.journeys.installation import KINDS
from tests.scenarios.nest import Nest
from tests.services.ports import free_port
from tests.services.postgres import restartable_cluster
from tests.services.redis import RedisServer, find_redis
from tests.soak import claims
from tests.soak.crowd import SoakCrowd
from tests.soak.grounds import SETTINGS, Grounds
from tests.soak.junk import Junk
from tests.soak.plan import make_plan
from tests.soak.watch import Failure, Watch
from tests.soak.work import Work

PROGRESS_SECONDS = 30.0
LOOK_SECONDS = 1.0
RATE = 3.0
"""Events that the publisher records each second."""
EXACT_SECONDS = 600.0
SLOW_SHARE = 0.02


class Soak:
    """All of it, over one folder."""

    def __init__(self, *, seconds, seed, sockets, burst, say=print):
        self.seconds = seconds
        self.seed = seed
        self.sockets = sockets
        self.burst = burst
        self.plan = make_plan(seed, seconds)
        self.watch = Watch()
        self.table = {}
        """What is counted at the end."""
        self.held = []
        """Claims that hold."""
        self._say = say
        self._stack = ExitStack()
        self._sizes = defaultdict(list)
        """(server, process id) → (when, bytes of memory, connections of the crowd)."""
        self._said_at = 0.0
        self.folder = None
        """Where the logs are; it stays when the soak fails."""

    def run(self):
        """Soak; raises Failure with what does not hold. All parts have ended when it returns."""
        with self._stack:
            try:
                self._begin()
                self._act()
                self._end()
            except Exception:
                self._count_what_there_is()
                raise
            finally:
                # Once is enough: from here on all is being ended.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        shutil.rmtree(self.folder)

    # ── the beginning ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self):
        self.folder = folder = Path(tempfile.mkdtemp(prefix="qflare-soak-"))
        self.nest = _nest()
        self._stack.callback(self.nest.close)
        postgres = self._stack.enter_context(restartable_cluster())
        redis_folder = folder / "redis"
        redis_folder.mkdir()
        redis = RedisServer(find_redis(), redis_folder)
        redis.start()
        self._stack.callback(redis.stop)
        url = f"{postgres.url.rpartition('/')[0]}/soak"
        ports = {name: free_port() for name in KINDS}
        self.house = self._stack.enter_context(
            Grounds(
                folder,
                settings=SETTINGS | {"DATABASE_URL": url, "REDIS_URL": redis.url},
                database=url,
                ports=ports,
                port=ports["anna"],
                nest=self.nest,
                watch=self.watch,
                postgres=postgres,
                redis=redis,
            )
        )
        self.house.begin()
        slow = max(1, round(self.sockets * SLOW_SHARE))
        self.crowd = SoakCrowd(ports, self.house.sessions, self.sockets, slow, watch=self.watch, seed=self.seed)
        self._stack.callback(self.crowd.leave)
        self.crowd.wait_until(lambda: self.crowd.open_now() == self.sockets, "not all came in")
        self.junk = Junk(ports, self.house.sessions, watch=self.watch, seed=self.seed)
        self.house.begin_publisher(RATE, self.burst)
        self.work = Work(self.house, watch=self.watch, seed=self.seed)
        self.watch.begin()
        self._say(f"begun: {self.sockets} sockets at {len(ports)} servers, {slow} of them slow; seed {self.seed}")

    # ── what happens ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _act(self):
        chance = random.Random(f"storms {self.seed}")
        for action in self.plan.actions:
            self._wait_until(action.at)
            self.watch.note(str(action))
            match action.kind:
                case "restart":
                    self._while_looking(lambda a=action: self.house.restart(a.part, a.way, a.amount))
                case "storm":
                    self.watch.back("storm")
                    self.crowd.storm(chance, action.amount, action.way == "hard")
                    self.crowd.counts["storms"] += 1
                case "burst":
                    self.house.parts["publisher"].send(signal.SIGUSR1)
                    self.crowd.counts["bursts"] += 1
        self._wait_until(self.seconds)

    def _while_looking(self, work):
        """Do something that takes a while in a thread of its own; Ctrl-C and faults are noticed meanwhile."""
        thread = threading.Thread(target=self._guard, args=(work,), daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            self._look()

    def _guard(self, work):
        try:
            work()
        except Exception as error:
            self.watch.fault(f"a restart failed: {type(error).__name__}: {error}")

    def _wait_until(self, at):
        while (left := at - self.watch.now) > 0:
            time.sleep(min(left, LOOK_SECONDS))
            self._look()

    def _look(self):
        self.watch.check()
        for name in self.house.living():
            program = self.house.parts[name]
            if not program.is_running:
                if not self.watch.is_away(name):
                    raise Failure(f"{program} ended by itself:\n{program.last_words()}")
                continue
            connections = sum(client.at == name for client in self.crowd.clients)
            self._sizes[name, program.pid].append((self.watch.now, self.house.rss(name), connections))
        if self.watch.now - self._said_at >= PROGRESS_SECONDS:
            self._said_at = self.watch.now
            counts = self.crowd.counts
            self._say(
                f"{self.watch.now / 60:5.1f} min: {self.crowd.open_now()} of {self.sockets} open, "
                f"{counts['deliveries']:,} deliveries, {counts['reconnects'] + counts['cut']:,} reconnects, "
                f"{self.house.restarts.total()} restarts, {self.work.counts['runs']} runs; last: {self.watch.last}"
            )

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _end(self):
        self.watch.note("the end of the plan")
        self._while_looking(self.work.leave)
        self.house.parts["publisher"].send(signal.SIGTERM)
        if code := self.house.parts["publisher"].wait():
            raise Failure(f"the publisher ended with {code}:\n{self.house.parts['publisher'].last_words()}")
        self._while_looking(self.junk.leave)
        self.crowd.make_haste()
        heads = self._make_sure_that_all_is_told()
        self._claim("no stream has a hole in the database", self.house.holes())
        self._claim("all runs were completed", [run for run in self.work.runs if self._state(run) != "completed"])
        self._claim("each round was aggregated exactly once", claims.not_once(self.house, self.work.runs))
        self._count(heads)
        self.crowd.leave()
        fleet = self.house.parts["fleet"]
        fleet.send(signal.SIGTERM)
        fleet.wait()
        self._claim(
            "servers have nothing left of clients, and no more open files than at their start",
            [f"{name}: {what}" for name, what in claims.wait_until_clean(self.house, KINDS).items()],
        )
        self._claim("memory of servers that were left alone has not grown", self._grown())
        self._end_all_parts()
        self._claim("logs hold no error but those of outages", claims.bad_lines(self.house.logs(), self.watch.outages))
        self.watch.check()

    def _make_sure_that_all_is_told(self):
        """Wait until every socket has every event of its streams; return where the streams stand."""
        give_up = time.monotonic() + EXACT_SECONDS
        while True:
            heads, runs = self.house.heads(), self._runs_made()
            lacks = self.crowd.behind(heads, runs)
            self._look()
            if not lacks and self.crowd.open_now() == self.sockets:
                break
            if time.monotonic() > give_up:
                raise Failure(
                    f"{len(lacks)} places are not what they are to be, {EXACT_SECONDS:g} s after: {lacks[:9]}"
                )
            time.sleep(LOOK_SECONDS)
        self._claim("every socket got every durable event of its streams, in order and once", self.crowd.faults)
        return heads

    def _runs_made(self):
        rows = self.house.rows("SELECT id, created_at FROM fl_run")
        return {f"run:{row['id']}": row["created_at"].timestamp() for row in rows}

    def _state(self, run):
        return self.house.run(run)["state"]

    def _grown(self):
        found, since = [], self.plan.elder_from
        self.table["memory grew by (MB, server)"] = "no server was old enough"
        told = []
        for (name, pid), samples in self._sizes.items():
            if pid != self.house.parts[name].pid or samples[0][0] > since + 5:
                continue
            measured = claims.growth(samples, since)
            if measured is None:
                continue
            grew, most = measured
            told.append(f"{grew / 1e6:+.1f} {name}")
            if grew > most:
                found.append(f"{name} grew by {grew / 1e6:.1f} MB from {since:.0f} s on, {most / 1e6:.1f} are allowed")
        if told:
            self.table["memory grew by (MB, server)"] = ", ".join(told)
        if not told:
            found.append(f"{self.plan.elder} was to be left alone from {since:.0f} s on, and was not")
        return found

    def _end_all_parts(self):
        servers = [self.house.parts[name] for name in (*KINDS, "xeni", "yuri")]
        for program in servers:
            program.send(signal.SIGTERM)
        self._claim("all parts end with 0 after SIGTERM", [str(one) for one in servers if one.wait() != 0])

    def _claim(self, what, found):
        """Make sure that nothing was found that speaks against a claim."""
        if found:
            some = "\n".join(str(one) for one in found[:5])
            raise Failure(
                f"{self.watch.now:.1f} s from the start: it is not so that {what}; {len(found)} found:\n{some}"
            )
        self.held.append(what)

    def _count(self, heads):
        counts, restarts = self.crowd.counts, self.house.restarts
        rounds = self.house.rows("SELECT count(*) AS n FROM fl_round WHERE state = 'completed'")[0]["n"]
        kinds = sorted({part for part, _ in restarts})
        self.table |= {
            "minutes": f"{self.watch.now / 60:.1f}",
            "sockets": f"{self.sockets:,}",
            "events recorded": f"{sum(heads.values()):,}",
            "deliveries": f"{counts['deliveries']:,}",
            "bursts, storms": f"{counts['bursts']}, {counts['storms']}",
            "reconnects": f"{counts['reconnects'] + counts['cut']:,}, {counts['cut']:,} of them in storms",
            "streams resumed": f"{self.crowd.resumed:,}",
            "snapshots": f"{counts['snapshots']:,}, {counts['resume window exceeded']} beyond the resume window",
            "restarts": ", ".join(
                f"{part} {sum(n for (one, _), n in restarts.items() if one == part)}" for part in kinds
            ),
            "connections ended, by code": ", ".join(f"{code}: {n}" for code, n in sorted(self.crowd.ends.items()))
            or "none",
            "and by living servers": ", ".join(
                f"{what.split()[0]}: {n}" for what, n in sorted(counts.items()) if what.endswith("by a living server")
            )
            or "none",
            "slow readers ended": counts["slow readers ended"],
            "others ended by living servers, since this machine did not read in time": counts["read late"],
            "sent away since they could not be let in in time": counts["not let in in time"],
            "junk connections": f"{self.junk.counts.total():,}",
            "runs, rounds completed": f"{self.work.counts['runs']}, {rounds}",
        }

    def _count_what_there_is(self):
        """Count what happened up to a failure, as far as it can be told."""
        with contextlib.suppress(Exception):
            self._count(self.house.heads())

    def report(self):
        """Return the table in Markdown."""
        lines = ["| soak | |", "|---|---|", *(f"| {name} | {value} |" for name, value in self.table.items())]
        return "\n".join([*lines, *(f"| holds | {what} |" for what in self.held)])


def _nest():
    """Start the nest so that Ctrl-C is this process's affair alone, which ends all others in order."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return Nest()
    finally:
        signal.signal(signal.SIGINT, handler)
