"""The Django application of federated learning: refuses to start without its algorithm, and makes the three roles."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _

from edge.identity import require_algorithm


class FlConfig(AppConfig):
    name = "fl"
    verbose_name = _("Federated learning")

    def ready(self) -> None:
        require_algorithm()
        from fl import checks, receivers, roles  # noqa: F401 - checks register themselves

        receivers.connect()
        post_migrate.connect(roles.make_groups, sender=self)
