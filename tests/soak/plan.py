"""What happens when: one plan, drawn from one seed."""

import random
from dataclasses import dataclass

WINDOW_SECONDS = 600
"""Within each, every kind of part is ended both ways."""
SERVERS = ("anna", "bert", "carl")
COORDINATORS = ("xeni", "yuri")
KINDS = ("server", "coordinator", "fleet", "redis", "postgres")
WAYS = ("SIGKILL", "SIGTERM")
SHORT_SECONDS = 150
"""In a soak below this, each kind of part is ended once."""
DOWN_SECONDS = 8.0


@dataclass(frozen=True, order=True)
class Action:
    """Something that happens, some seconds after the start.

    Attributes:
        kind: restart, storm or burst.
        part: whose restart.
        way: the signal of a restart, hard or soft of a storm.
        amount: seconds for which a part is away, share of the sockets that a storm cuts.
    """

    at: float
    kind: str
    part: str = ""
    way: str = ""
    amount: float = 0.0

    def __str__(self):
        words = {
            "restart": f"{self.way} of {self.part}, away for {self.amount:.1f} s",
            "storm": f"a storm that cuts {self.amount:.0%} of the sockets, {self.way}",
            "burst": "a burst",
        }
        return words[self.kind]


@dataclass(frozen=True)
class Plan:
    """All actions in order.

    Attributes:
        elder: the server that is left alone for the last of it, so that one can see whether a server grows.
        elder_from: from when on.
    """

    actions: tuple[Action, ...]
    elder: str
    elder_from: float


def make_plan(seed, seconds):
    """Return the plan of a soak of so many seconds; the same for the same seed."""
    chance = random.Random(seed)
    elder = chance.choice(SERVERS)
    elder_from = seconds - min(WINDOW_SECONDS, seconds / 2)
    actions = []
    begin = 0.0
    while begin < seconds - 1:
        length = min(WINDOW_SECONDS, seconds - begin)
        actions += _window(chance, begin, length, elder, elder_from)
        begin += length
    return Plan(tuple(sorted(actions)), elder, elder_from)


def _window(chance, begin, length, elder, elder_from):
    is_short = length < SHORT_SECONDS
    ends = [(kind, way) for kind in KINDS for way in ([chance.choice(WAYS)] if is_short else WAYS)]
    others = max(1, round(length / 75))
    acts = [("restart", *end) for end in ends] + [("storm", "", "")] * 2 * others + [("burst", "", "")] * others
    chance.shuffle(acts)
    # The last part of a window is left for what was begun in it; each act has its own share of the rest, so that
    # acts do not wait in a queue for long.
    share = length * 0.9 / len(acts)
    for number, (kind, part, way) in enumerate(acts):
        at = begin + share * (number + chance.uniform(0.1, 0.9))
        if kind == "restart":
            yield Action(at, kind, _name(chance, part, at, elder, elder_from), way, _away(chance, length))
        elif kind == "storm":
            yield Action(at, kind, way=chance.choice(("hard", "soft")), amount=chance.choice((0.1, 0.3, 0.6, 1.0)))
        else:
            yield Action(at, kind)


def _name(chance, part, at, elder, elder_from):
    if part == "server":
        return chance.choice([name for name in SERVERS if name != elder or at < elder_from])
    return chance.choice(COORDINATORS) if part == "coordinator" else part


def _away(chance, length):
    return round(chance.uniform(0.0, min(DOWN_SECONDS, length / 60)), 1)
