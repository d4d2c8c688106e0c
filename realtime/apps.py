"""The Django application of the sockets: it listens to what `fl` tells."""

from django.apps import AppConfig


class RealtimeConfig(AppConfig):
    name = "realtime"
    verbose_name = "Real time"

    def ready(self) -> None:
        from realtime import checks, receivers  # noqa: F401 - checks register themselves

        receivers.connect()
