"""Where a device's work is done: a few threads that train, a few that wait for the network, and a clock.

The threads end with the process (crash-only: what matters is on the disk), so a server that does not answer never keeps
a device from stopping.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

Work = Callable[[], None]

_Queue = SimpleQueue[Work | None]


class Jobs:
    """Two pools of threads and a clock; shared by all devices of a process.

    Args:
        training: threads that train, at least 1.
        network: threads that talk to the server, at least 1.
        on_crash: told of an exception that no job should let out; the process must then end.
    """

    def __init__(self, *, training: int, network: int, on_crash: Callable[[BaseException], None]) -> None:
        self._training: _Queue = SimpleQueue()
        self._network: _Queue = SimpleQueue()
        self._on_crash = on_crash
        self._later: list[tuple[float, int, Work]] = []
        self._order = itertools.count()
        self._clock = threading.Condition()
        self._closed = False
        self._threads = [
            *_threads("training", training, partial(self._work, self._training)),
            *_threads("network", network, partial(self._work, self._network)),
            *_threads("clock", 1, self._tick),
        ]

    def train(self, work: Work) -> None:
        """Do this as soon as a training thread is free, in the order of asking."""
        self._training.put(work)

    def network(self, work: Work) -> None:
        """Do this as soon as a network thread is free, in the order of asking."""
        self._network.put(work)

    def later(self, seconds: float, work: Work) -> None:
        """Do this on a network thread after some time."""
        with self._clock:
            heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), work))
            self._clock.notify()

    def close(self, seconds: float) -> bool:
        """Begin nothing more; say whether all that was begun ended in time."""
        with self._clock:
            self._closed = True
            self._clock.notify()
        for _ in self._threads:
            self._training.put(None)
            self._network.put(None)
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, queue: _Queue) -> None:
        while True:
            work = queue.get()
            if work is None or self._closed:
                return
            try:
                work()
            except BaseException as error:
                self._on_crash(error)

    def _tick(self) -> None:
        with self._clock:
            while not self._closed:
                wait = self._later[0][0] - time.monotonic() if self._later else None
                if wait is not None and wait <= 0:
                    self._network.put(heapq.heappop(self._later)[2])
                else:
                    self._clock.wait(wait)


def _threads(name: str, count: int, target: Work) -> list[threading.Thread]:
    threads = [threading.Thread(target=target, name=f"edge-{name}-{number}", daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads
