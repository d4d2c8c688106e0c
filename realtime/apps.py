"""The Django application of the sockets: it listens to what `fl` tells."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class RealtimeConfig(AppConfig):
    name = "realtime"
    verbose_name = _("Real time")

    def ready(self) -> None:
        from realtime import checks, receivers  # noqa: F401 - checks register themselves

        receivers.connect()
