"""Django's admin over every table of `fl`: to look, and to act through the use cases; nobody edits a state by hand.

People and their groups are edited here, and what is done to them is noted in the audit log.
"""

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import GroupAdmin as StockGroupAdmin
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from fl.exceptions import FlError
from fl.models import (
    Assignment,
    AuditEntry,
    Device,
    DeviceTask,
    EnrollmentToken,
    ErrorGroup,
    Event,
    GlobalModel,
    IdempotentRequest,
    PresenceLease,
    Round,
    Run,
    SignInCode,
    Stream,
    Update,
)
from fl.roles import Role, role_of

if TYPE_CHECKING:
    from types import ModuleType

    _ModelAdmin = admin.ModelAdmin[Any]
    _UserAdmin = StockUserAdmin[User]
    _TabularInline = admin.TabularInline[Any, Any]
    _ModelForm = forms.ModelForm[EnrollmentToken]
else:
    # Django's classes take no parameters at run time.
    _ModelAdmin = admin.ModelAdmin
    _UserAdmin = StockUserAdmin
    _ModelForm = forms.ModelForm
    _TabularInline = admin.TabularInline


class _ReadOnly:
    """To be looked at by admins, and changed by nobody."""

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return role_of(request.user) >= Role.ADMIN

    def has_module_permission(self, request: HttpRequest) -> bool:
        return role_of(request.user) >= Role.ADMIN

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ReadOnlyAdmin(_ReadOnly, _ModelAdmin):
    """A table to look at, with the actions that its class names."""

    show_full_result_count = False
    list_per_page = 50
    secrets: ClassVar[tuple[str, ...]] = ()
    """Fields that are not shown: hashes of secrets, and bytes that nobody can read."""

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return list(self.secrets)

    def _act(self, request: HttpRequest, rows: QuerySet[Any], use_case: Callable[[Any], object], done: str) -> None:
        """Call a use case for each chosen row, and say what became of each.

        Args:
            done: a sentence in English with the place `{count}`.
        """
        count = 0
        for row in rows:
            try:
                use_case(row)
            except FlError as error:
                self.message_user(request, f"{error.message}. {error.action}".rstrip(". ") + ".", messages.ERROR)
            else:
                count += 1
        if count:
            self.message_user(request, gettext(done).format(count=count), messages.SUCCESS)


class _ReadOnlyInline(_ReadOnly, _TabularInline):
    extra = 0
    can_delete = False
    show_change_link = True


class ReasonForm(ActionForm):
    """The line above a list of devices, with room for a reason."""

    reason = forms.CharField(required=False, max_length=500, label=_("Reason"))


# ── runs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class RoundInline(_ReadOnlyInline):
    model = Round
    fields = readonly_fields = ("number", "state", "reason", "started_at", "ended_at")


class ModelInline(_ReadOnlyInline):
    model = GlobalModel
    fields = readonly_fields = ("version", "digest", "size", "metrics", "published_at")


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    """Runs, and the commands that steer them."""

    list_display = ["label", "name", "task", "strategy", "state", "reason", "created_at", "ended_at"]
    list_filter = ["state", "task", "strategy", "is_protected", ("deleted_at", admin.EmptyFieldListFilter)]
    search_fields = ["name"]
    inlines = [RoundInline, ModelInline]
    actions = ["start", "pause", "resume", "stop_after_round", "stop_now"]

    @admin.action(description=_("Start"))
    def start(self, request: HttpRequest, rows: QuerySet[Run]) -> None:
        self._steer(request, rows, _runs().start_run, gettext_noop("{count} run(s) started."))

    @admin.action(description=_("Pause"))
    def pause(self, request: HttpRequest, rows: QuerySet[Run]) -> None:
        self._steer(request, rows, _runs().pause_run, gettext_noop("{count} run(s) paused."))

    @admin.action(description=_("Resume"))
    def resume(self, request: HttpRequest, rows: QuerySet[Run]) -> None:
        self._steer(request, rows, _runs().resume_run, gettext_noop("{count} run(s) resumed."))

    @admin.action(description=_("Stop after the round that is training"))
    def stop_after_round(self, request: HttpRequest, rows: QuerySet[Run]) -> None:
        self._steer(
            request,
            rows,
            partial(_runs().stop_run, after_round=True),
            gettext_noop("{count} run(s) stopped, or stopping after this round."),
        )

    @admin.action(description=_("Stop now, and cancel what devices are doing"))
    def stop_now(self, request: HttpRequest, rows: QuerySet[Run]) -> None:
        self._steer(request, rows, _runs().stop_run, gettext_noop("{count} run(s) stopped."))

    def _steer(self, request: HttpRequest, rows: QuerySet[Run], use_case: Callable[..., Run], done: str) -> None:
        now, by = timezone.now(), _person(request)
        self._act(request, rows, lambda run: use_case(run=run, now=now, by=by), done)


class AssignmentInline(_ReadOnlyInline):
    model = Assignment
    fields = readonly_fields = ("cohort_index", "device", "state", "reason", "progress", "assigned_at", "ended_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Assignment]:
        return super().get_queryset(request).select_related("device")


@admin.register(Round)
class RoundAdmin(ReadOnlyAdmin):
    list_display = ["run", "number", "state", "reason", "started_at", "deadline_at", "ended_at"]
    list_filter = ["state"]
    list_select_related = ["run"]
    inlines = [AssignmentInline]


@admin.register(Assignment)
class AssignmentAdmin(ReadOnlyAdmin):
    list_display = ["id", "round", "cohort_index", "device", "state", "reason", "progress", "assigned_at", "ended_at"]
    list_filter = ["state"]
    list_select_related = ["round", "device"]
    search_fields = ["device__name"]


@admin.register(Update)
class UpdateAdmin(ReadOnlyAdmin):
    """Updates with the manifest that each device signed."""

    list_display = ["assignment", "state", "code", "reason", "num_examples", "norm", "size", "received_at"]
    list_filter = ["state", "code"]
    list_select_related = ["assignment"]
    secrets = ("manifest", "signature")
    readonly_fields = ["manifest_text"]

    @admin.display(description=_("Manifest, as it was signed"))
    def manifest_text(self, update: Update) -> str:
        return bytes(update.manifest).decode(errors="replace")


@admin.register(GlobalModel)
class GlobalModelAdmin(ReadOnlyAdmin):
    list_display = ["run", "version", "digest", "size", "metrics", "created_at", "published_at"]
    list_select_related = ["run"]
    search_fields = ["digest"]


# ── devices ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class OfferInline(_ReadOnlyInline):
    model = DeviceTask
    fields = readonly_fields = ("task", "digest", "num_examples", "supports")
    show_change_link = False


class LeaseInline(_ReadOnlyInline):
    model = PresenceLease
    fields = readonly_fields = ("connection_id", "instance", "connected_at", "lease_until", "closed_at")


@admin.register(Device)
class DeviceAdmin(ReadOnlyAdmin):
    """Devices, and who takes part."""

    list_display = ["name", "state", "state_reason", "edge_version", "enrolled_at", "last_heard_at"]
    list_filter = ["state", "edge_version"]
    search_fields = ["name", "fingerprint"]
    inlines = [OfferInline, LeaseInline]
    secrets = ("public_key",)
    action_form = ReasonForm
    actions = ["approve", "suspend", "reinstate", "revoke"]

    @admin.action(description=_("Approve"))
    def approve(self, request: HttpRequest, rows: QuerySet[Device]) -> None:
        self._decide(request, rows, _devices().approve, gettext_noop("{count} device(s) approved."))

    @admin.action(description=_("Suspend"))
    def suspend(self, request: HttpRequest, rows: QuerySet[Device]) -> None:
        self._decide(
            request,
            rows,
            partial(_devices().suspend, reason=_reason(request)),
            gettext_noop("{count} device(s) suspended."),
        )

    @admin.action(description=_("Reinstate"))
    def reinstate(self, request: HttpRequest, rows: QuerySet[Device]) -> None:
        self._decide(request, rows, _devices().reinstate, gettext_noop("{count} device(s) reinstated."))

    @admin.action(description=_("Revoke for good"))
    def revoke(self, request: HttpRequest, rows: QuerySet[Device]) -> None:
        self._decide(
            request,
            rows,
            partial(_devices().revoke, reason=_reason(request)),
            gettext_noop("{count} device(s) revoked."),
        )

    def _decide(self, request: HttpRequest, rows: QuerySet[Device], use_case: Callable[..., Device], done: str) -> None:
        now, by = timezone.now(), _person(request)
        self._act(request, rows, lambda device: use_case(device=device, now=now, by=by), done)


@admin.register(DeviceTask)
class DeviceTaskAdmin(ReadOnlyAdmin):
    list_display = ["device", "task", "num_examples", "digest"]
    list_filter = ["task"]
    list_select_related = ["device"]


@admin.register(PresenceLease)
class PresenceLeaseAdmin(ReadOnlyAdmin):
    list_display = ["device", "instance", "connected_at", "lease_until", "closed_at"]
    list_select_related = ["device"]


class NewTokenForm(_ModelForm):
    """What a token is for and how long it lives."""

    lifetime_hours = forms.FloatField(min_value=0.01, max_value=EnrollmentToken.MAX_LIFETIME_HOURS, initial=24)

    class Meta:
        model = EnrollmentToken
        fields = ["label", "auto_approve"]


@admin.register(EnrollmentToken)
class EnrollmentTokenAdmin(ReadOnlyAdmin):
    """Enrolment tokens; a new one shows its text once."""

    list_display = ["__str__", "auto_approve", "created_by", "created_at", "expires_at", "used_at", "device"]
    list_filter = ["auto_approve"]
    list_select_related = ["created_by", "device"]
    secrets = ("secret_hash",)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return role_of(request.user) >= Role.ADMIN

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            return NewTokenForm
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return [(None, {"fields": ["label", "auto_approve", "lifetime_hours"]})]
        return super().get_fieldsets(request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Issue a token by the use case."""
        token, text = _devices().issue_token(
            label=form.cleaned_data["label"],
            auto_approve=form.cleaned_data["auto_approve"],
            lifetime=timedelta(hours=form.cleaned_data["lifetime_hours"]),
            created_by=_person(request),
            now=timezone.now(),
        )
        obj.pk, obj.issued_text = token.pk, str(text)
        obj.refresh_from_db()

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Show the text in this answer: a message would carry it in a cookie."""
        context = {**self.admin_site.each_context(request), "title": gettext("A new enrolment token"), "token": obj}
        return TemplateResponse(request, "admin/fl/enrollmenttoken/issued.html", {**context, "text": obj.issued_text})


# ── people ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _NotedAdmin(_ModelAdmin):
    """A table that is edited by hand; Django's log of it is what `fl.receivers` notes, in the same transaction."""

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        with transaction.atomic():
            return super().response_action(request, queryset, *args, **kwargs)

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[LogEntry]:
        """Log each by itself: what is stored in bulk sends no signal."""
        log = super().log_deletions
        rows = self.model._default_manager
        return [entry for row in queryset for entry in log(request, rows.filter(pk=row.pk))]


admin.site.unregister([User, Group])


@admin.register(User)
class UserAdmin(_NotedAdmin, _UserAdmin):
    """People, as Django edits them."""

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        """Set somebody's password; that it was set is noted, or it is not set."""
        with transaction.atomic():
            return super().user_change_password(request, id, form_url)


@admin.register(Group)
class GroupAdmin(_NotedAdmin, StockGroupAdmin):
    """Groups, as Django edits them; the three that are roles among them."""


# ── the log, and the rest ─────────────────────────────────────────────────────────────────────────────────────────────


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    """The log of what happened, which is only ever added to."""

    list_display = ["stream", "seq", "event", "timestamp"]
    list_filter = ["event"]
    search_fields = ["=stream__name"]
    ordering = ["-pk"]
    secrets = ("data",)
    readonly_fields = ["payload"]

    @admin.display(description=_("Data"))
    def payload(self, event: Event) -> str:
        return json.dumps(json.loads(event.data), indent=2, ensure_ascii=False)


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """Who did what; a page of its own (`/audit/`) filters and exports."""

    list_display = ["at", "person_name", "act", "subject", "address", "door"]
    list_filter = ["act", "door"]
    search_fields = ["person_name", "subject"]


@admin.register(Stream)
class StreamAdmin(ReadOnlyAdmin):
    list_display = ["name", "head", "epoch", "task", "public"]
    search_fields = ["name"]


@admin.register(ErrorGroup)
class ErrorGroupAdmin(ReadOnlyAdmin):
    list_display = ["stream", "untold", "told_at"]
    secrets = ("data",)


@admin.register(IdempotentRequest)
class IdempotentRequestAdmin(ReadOnlyAdmin):
    list_display = ["user", "key", "status", "created_at"]
    list_select_related = ["user"]


@admin.register(SignInCode)
class SignInCodeAdmin(ReadOnlyAdmin):
    list_display = ["user", "created_at", "expires_at", "used_at"]
    list_select_related = ["user"]
    secrets = ("code_hash",)


def _runs() -> "ModuleType":
    """Return the use cases of runs. They load torch, which every command that only looks around would wait for."""
    from fl import runs

    return runs


def _devices() -> "ModuleType":
    """Return the use cases of devices, late for the same reason."""
    from fl import devices

    return devices


def _person(request: HttpRequest) -> User | None:
    return request.user if isinstance(request.user, User) else None


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "")[:500]
