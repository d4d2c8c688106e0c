"""Threads with a database connection each, started together or held at a moment; and waiting for a condition."""

import threading
import time

from django.db import connection

GIVE_UP_SECONDS = 60


def eventually(claim, what=lambda: "it did not come true"):
    """Wait until `claim()` is true and return what it returned; `what()` says what was wrong at last."""
    give_up_at = time.monotonic() + GIVE_UP_SECONDS
    while not (found := claim()):
        assert time.monotonic() < give_up_at, what()
        threading.Event().wait(0.01)
    return found


class Call(threading.Thread):
    """Calls a function in a thread of its own; `result()` waits and returns or raises what it did."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self.function = function
        self.outcome = None
        self.error = None
        self.waits_for_writing = threading.Event()
        """Set when the thread is about to wait for the right to write."""
        self.start()

    def run(self):
        try:
            with connection.execute_wrapper(self._note):
                self.outcome = self.function()
        except BaseException as error:
            self.error = error
        finally:
            connection.close()

    def _note(self, execute, sql, parameters, many, context):
        # SQLite takes the lock where a transaction begins, PostgreSQL where a row is first locked.
        if sql.startswith("BEGIN IMMEDIATE") or "FOR UPDATE" in sql:
            self.waits_for_writing.set()
        return execute(sql, parameters, many, context)

    def held_up(self):
        """Wait until what the caller has locked keeps this thread from going on."""
        assert self.waits_for_writing.wait(GIVE_UP_SECONDS)
        if connection.vendor == "postgresql":  # where others may write other rows meanwhile
            eventually(_somebody_waits_for_a_lock)

    def result(self):
        self.join(GIVE_UP_SECONDS)
        assert not self.is_alive(), "it did not end"
        if self.error is not None:
            raise self.error
        return self.outcome


def at_once(*functions):
    """Call functions in threads that start together; return what each returned or raised."""
    ready = threading.Barrier(len(functions))

    def wait_and_call(function):
        ready.wait(GIVE_UP_SECONDS)
        return function()

    calls = [Call(lambda function=function: wait_and_call(function)) for function in functions]
    outcomes = []
    for call in calls:
        call.join(GIVE_UP_SECONDS)
        outcomes.append(call.error or call.outcome)
    return outcomes


def _somebody_waits_for_a_lock():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0]
