"""make soak ARGS="--minutes 3 --seed 7 --sockets 200"

For as long as one likes: three servers, two coordinators and a fleet over PostgreSQL and Redis of their own, all with
their own intervals and limits; sockets of many people that keep account, some of them slow; junk; runs, broadcasts and
bursts. All parts are ended and restarted in an order drawn from the seed. The exit code is 0 only if all claims hold.
"""

import argparse
import resource
import secrets
import shutil
import signal
import sys

import pytest

from tests.soak.soak import Soak
from tests.soak.watch import Failure

OPEN_FILES = 400
"""What the soak opens beside its sockets."""


def main():
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _open_files(options.sockets + OPEN_FILES)
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    print(f"soak of {options.minutes:g} min, {options.sockets} sockets, --seed {seed}", flush=True)
    soak = Soak(seconds=options.minutes * 60, seed=seed, sockets=options.sockets, burst=options.burst, say=say)
    try:
        soak.run()
    except (Failure, AssertionError, pytest.fail.Exception, pytest.skip.Exception) as failure:
        print(f"\n{soak.report()}\n\nFAILED, --seed {seed}: {failure or type(failure).__name__}", flush=True)
        print(f"logs: {soak.folder}", flush=True)
        return 1
    except KeyboardInterrupt:
        if soak.folder:
            shutil.rmtree(soak.folder, ignore_errors=True)
        print(f"\ninterrupted; --seed {seed}", flush=True)
        return 130
    print(f"\n{soak.report()}\n\nall holds; --seed {seed}", flush=True)
    return 0


def say(text):
    print(text, flush=True)


def _open_files(wanted):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(f"{wanted} open files are wanted, {hard} are allowed: raise the hard limit (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _options():
    parser = argparse.ArgumentParser(prog="make soak", description="Everything restarts, and nothing may be missing.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default 30)")
    parser.add_argument("--sockets", type=int, default=1000, help="how many dashboards (default 1000)")
    parser.add_argument("--seed", type=int, help="what happens when; drawn and printed if not given")
    parser.add_argument("--burst", type=int, default=2000, help="events of a burst (default 2000)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
