"""The addresses of the pages."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from fl.views import audit, compare, devices, events, inspector, live, run_list, runs, signing_in

urlpatterns = [
    path("", live.overview, name="overview"),
    path("audit/", audit.audit_list, name="audit"),
    path("compare/", compare.compare, name="compare"),
    path("runs/", run_list.index, name="run-list"),
    path("runs/new/", runs.new_run, name="new-run"),
    path("runs/demo/", runs.start_demo, name="start-demo"),
    path("runs/<int:run_id>/", live.run, name="run"),
    path("runs/<int:run_id>/edit/", runs.edit_run, name="edit-run"),
    path("runs/<int:run_id>/stop/", runs.stop_run, name="stop-run"),
    path("runs/<int:run_id>/<slug:command>/", runs.command_run, name="command-run"),
    path("devices/", devices.device_list, name="device-list"),
    path("devices/enrol/", devices.enroll_device, name="enroll-device"),
    path("devices/<int:device_id>/<slug:command>/", devices.command_device, name="command-device"),
    path("events/", events.event_list, name="event-list"),
    path("inspector/", inspector.inspector, name="inspector"),
    path("login/", signing_in.Login.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("sign-in/", signing_in.sign_in, name="sign-in"),
]
