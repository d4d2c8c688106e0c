"""A server's clock that can be set: all that asks Django for the time is told another one."""

from datetime import timedelta

from django.utils import timezone

from tests.scenarios.control import command

_true_now = timezone.now
_off_by = timedelta()


def _now():
    return _true_now() + _off_by


timezone.now = _now


@command("set_clock")
def set_clock(off_by_seconds):
    """Let the server's clock be off by so many seconds from now on."""
    global _off_by
    _off_by = timedelta(seconds=off_by_seconds)
