"""Server processes to look at, and the broadcast form, in the Django admin."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from fl.admin import ReadOnlyAdmin
from fl.exceptions import FlError
from fl.roles import Role, role_of
from fl.visibility import AUDIENCES
from realtime.broadcasts import BroadcastRequest, send
from realtime.models import ServerProcess
from realtime.statistics import connection_statistics


class BroadcastForm(forms.Form):
    """What an admin says, and to whom."""

    message = forms.CharField(label=_("Message"), max_length=2000, widget=forms.Textarea(attrs={"rows": 4, "cols": 80}))
    audiences = forms.MultipleChoiceField(
        label=_("Audiences"),
        choices=[(audience, audience) for audience in AUDIENCES],
        widget=forms.CheckboxSelectMultiple,
        help_text=_("dashboards, devices (clients), admins, or everybody on /ws (general)"),
    )
    level = forms.ChoiceField(label=_("Level"), choices=[(level, level) for level in ("info", "warning", "error")])


@admin.register(ServerProcess)
class ServerProcessAdmin(ReadOnlyAdmin):
    """Who serves whom right now; its list leads to the broadcast form."""

    list_display = (
        "instance",
        "heard_at",
        "connections",
        "queued_frames",
        "longest_queue",
        "behind",
        "events_per_second",
        "frames_per_second",
        "bytes_sent",
        "bytes_received",
    )
    change_list_template = "admin/realtime/serverprocess/change_list.html"

    def get_urls(self) -> list[URLPattern]:
        form = path("broadcast/", self.admin_site.admin_view(self.broadcast), name="realtime_broadcast")
        return [form, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        figures = connection_statistics(timezone.now())
        return super().changelist_view(request, {**(extra_context or {}), "figures": figures})

    def broadcast(self, request: HttpRequest) -> HttpResponse:
        """Show the form, or send what it holds."""
        sender = request.user
        if not isinstance(sender, User) or role_of(sender) < Role.ADMIN:
            raise PermissionDenied(gettext("broadcasts need the role admin"))
        form = BroadcastForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            wanted = BroadcastRequest(**form.cleaned_data)
            try:
                payload = send(wanted, sender=sender, now=timezone.now())
            except FlError as error:
                form.add_error(None, error.message)
            else:
                sent = gettext("Sent to {audiences}.").format(audiences=", ".join(payload["audiences"]))
                messages.success(request, sent)
                return redirect("admin:realtime_broadcast")
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("Broadcast"),
            "form": form,
            "opts": self.opts,
        }
        return render(request, "admin/realtime/serverprocess/broadcast.html", context)
