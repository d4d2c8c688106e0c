"""The addresses of the pages."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from fl import views

urlpatterns = [
    path("", views.overview, name="overview"),
    path("runs/", views.run_list, name="run-list"),
    path("runs/new/", views.new_run, name="new-run"),
    path("runs/demo/", views.start_demo, name="start-demo"),
    path("runs/<int:run_id>/", views.run, name="run"),
    path("runs/<int:run_id>/stop/", views.stop_run, name="stop-run"),
    path("runs/<int:run_id>/<slug:command>/", views.command_run, name="command-run"),
    path("devices/", views.device_list, name="device-list"),
    path("devices/enrol/", views.enroll_device, name="enroll-device"),
    path("devices/<int:device_id>/<slug:command>/", views.command_device, name="command-device"),
    path("login/", views.Login.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("sign-in/", views.sign_in, name="sign-in"),
]
