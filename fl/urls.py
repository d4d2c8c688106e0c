"""The addresses of the pages."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from fl.trash import protect_run, unprotect_run
from fl.views import (
    audit,
    compare,
    device,
    devices,
    enrollment,
    events,
    inspector,
    live,
    run_list,
    run_rounds,
    run_tabs,
    runs,
    signing_in,
    trash,
)

urlpatterns = [
    path("", live.overview, name="overview"),
    path("audit/", audit.audit_list, name="audit"),
    path("compare/", compare.compare, name="compare"),
    path("runs/", run_list.index, name="run-list"),
    path("runs/new/", runs.new_run, name="new-run"),
    path("runs/demo/", runs.start_demo, name="start-demo"),
    path("runs/trash/", trash.list_trash, name="trash"),
    path("runs/trash/move/", trash.move_to_trash, name="move-to-trash"),
    path("runs/<int:run_id>/", live.run, name="run"),
    path("runs/<int:run_id>/config/", run_tabs.config, name="run-config"),
    path("runs/<int:run_id>/devices/", run_tabs.devices, name="run-devices"),
    path("runs/<int:run_id>/edit/", runs.edit_run, name="edit-run"),
    path("runs/<int:run_id>/events/", run_tabs.events, name="run-events"),
    path("runs/<int:run_id>/extend-deadline/", runs.extend_deadline, name="extend-deadline"),
    path("runs/<int:run_id>/models/", run_tabs.models, name="run-models"),
    path("runs/<int:run_id>/protect/", trash.protect_run, {"use_case": protect_run}, name="protect-run"),
    path("runs/<int:run_id>/restore/", trash.restore_run, name="restore-run"),
    path("runs/<int:run_id>/rounds/", run_rounds.rounds, name="run-rounds"),
    path("runs/<int:run_id>/rounds/<int:number>/", run_rounds.round_, name="run-round"),
    path("runs/<int:run_id>/stop/", runs.stop_run, name="stop-run"),
    path("runs/<int:run_id>/unprotect/", trash.protect_run, {"use_case": unprotect_run}, name="unprotect-run"),
    path("runs/<int:run_id>/<slug:command>/", runs.command_run, name="command-run"),
    path("devices/", devices.list_devices, name="device-list"),
    path("devices/enrol/", enrollment.enroll_device, name="enroll-device"),
    path("devices/enrol/<int:token_id>/withdraw/", enrollment.withdraw_token, name="withdraw-token"),
    path("devices/<int:device_id>/", device.show_device, name="device"),
    path("devices/<int:device_id>/<slug:command>/", devices.command_device, name="command-device"),
    path("events/", events.event_list, name="event-list"),
    path("inspector/", inspector.inspector, name="inspector"),
    path("login/", signing_in.Login.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("sign-in/", signing_in.sign_in, name="sign-in"),
]
