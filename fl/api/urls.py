"""The addresses of the REST API, below `/api/v1/`."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from fl.api import audit, catalogue, devices, doors, log, runs, series, trials

router = SimpleRouter(use_regex_path=False)
router.register("runs", runs.RunViewSet, basename="run")
router.register("devices", devices.DeviceViewSet, basename="device")

app_name = "api"
urlpatterns = [
    # people
    path("", include(router.urls)),
    path("runs/<int:run_id>/rounds/", runs.RoundList.as_view(), name="rounds"),
    path("runs/<int:run_id>/rounds/<int:number>/", runs.RoundDetail.as_view(), name="round"),
    path("runs/<int:run_id>/series/", series.SeriesView.as_view(), name="series"),
    path("runs/<int:run_id>/models/", runs.ModelList.as_view(), name="models"),
    path("runs/<int:run_id>/models/<slug:version>/", runs.ModelDetail.as_view(), name="model"),
    path("runs/<int:run_id>/models/<slug:version>/weights/", runs.ModelWeights.as_view(), name="model-weights"),
    path("audit/", audit.AuditList.as_view(), name="audit"),
    path("devices/qualifying/", catalogue.QualifyingDevices.as_view(), name="qualifying-devices"),
    path("enrollment-tokens/", devices.TokenList.as_view(), name="enrollment-tokens"),
    path("streams/", log.StreamList.as_view(), name="streams"),
    path("events/", log.EventList.as_view(), name="events"),
    path("test-events/", trials.TestEventView.as_view(), name="test-events"),
    path("tasks/", catalogue.TaskList.as_view(), name="tasks"),
    path("strategies/", catalogue.StrategyList.as_view(), name="strategies"),
    path("steps/", catalogue.StepList.as_view(), name="steps"),
    # devices
    path("server/", doors.ServerView.as_view(), name="server"),
    path("enroll/", doors.EnrollView.as_view(), name="enroll"),
    path("assignments/<int:assignment_id>/failure/", doors.FailureView.as_view(), name="failure"),
]
