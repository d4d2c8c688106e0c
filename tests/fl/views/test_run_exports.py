"""Files of rows: streamed, whole, and harmless to spreadsheets."""

import csv
import io
import json

import pytest
from django.urls import reverse

from fl.models import Assignment, Device
from fl.queries import run_rounds
from tests.fl.views.answers import after_one_round
from tests.fl.views.long_runs import long_run

uses_database = pytest.mark.django_db


def read_csv(response):
    """Return the rows of a CSV file as dicts."""
    text = b"".join(response.streaming_content).decode()
    return list(csv.DictReader(io.StringIO(text)))


def read_json(response):
    return json.loads(b"".join(response.streaming_content))


@uses_database
def test_rounds_come_as_csv_from_the_initial_evaluation_on(viewer):
    run = after_one_round()

    response = viewer.get(reverse("run-rounds", args=[run.pk]), {"format": "csv"})
    initial, first, second = read_csv(response)

    assert response.streaming
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert f"{run.label}-rounds.csv" in response["Content-Disposition"]
    assert [initial["state"], first["state"]] == ["initial", "completed"]
    assert float(first["loss"]) == run.models.get(version=1).metrics["loss"]
    assert float(first["loss_devices_p90"]) == run.round_set.get(number=1).device_metrics["loss"]["p90"]
    assert (first["updates_received"], first["version"], second["version"]) == ("2", "1", "")


@uses_database
def test_rounds_come_as_json_with_the_same_numbers(viewer):
    run = after_one_round()

    initial, first, _ = read_json(viewer.get(reverse("run-rounds", args=[run.pk]), {"format": "json"}))

    assert (initial["number"], first["number"]) == (0, 1)
    assert first["metrics"] == run.models.get(version=1).metrics


@uses_database
def test_more_rounds_than_one_piece_come_once_each_and_in_order(viewer, monkeypatch):
    monkeypatch.setattr(run_rounds, "PIECE", 4)
    run = long_run(rounds=9, devices=2)

    rounds = read_json(viewer.get(reverse("run-rounds", args=[run.pk]), {"format": "json"}))
    parts = read_csv(viewer.get(reverse("run-round", args=[run.pk, 9]), {"format": "csv"}))

    assert [line["number"] for line in rounds] == list(range(10))
    assert len(parts) == 2


@uses_database
def test_a_filter_holds_for_the_file_too(viewer):
    run = after_one_round()

    rounds = read_json(viewer.get(reverse("run-rounds", args=[run.pk]), {"format": "json", "state": "completed"}))

    assert [line["number"] for line in rounds] == [1]


@uses_database
def test_the_parts_of_a_round_come_with_what_the_updates_say(viewer):
    run = after_one_round()
    address = reverse("run-round", args=[run.pk, 1])

    lines = read_csv(viewer.get(address, {"format": "csv"}))
    same = read_json(viewer.get(address, {"format": "json"}))

    part = Assignment.objects.get(pk=lines[0]["assignment_id"])
    assert float(lines[0]["norm"]) == part.update.norm
    assert float(lines[0]["loss"]) == part.update.metrics["loss"]
    assert int(lines[0]["size_bytes"]) == part.update.size
    assert [line["assignment_id"] for line in same] == [int(line["assignment_id"]) for line in lines]


@uses_database
def test_a_devices_name_is_no_formula(viewer):
    run = after_one_round()
    device = Assignment.objects.filter(round__number=1).first().device
    Device.objects.filter(pk=device.pk).update(name='=HYPERLINK("evil")')

    lines = read_csv(viewer.get(reverse("run-round", args=[run.pk, 1]), {"format": "csv"}))

    assert '\'=HYPERLINK("evil")' in [line["device_name"] for line in lines]


@uses_database
def test_a_run_or_round_that_is_not_there_has_no_file(viewer):
    run = after_one_round()

    assert viewer.get(reverse("run-rounds", args=[999]), {"format": "csv"}).status_code == 404
    assert viewer.get(reverse("run-round", args=[run.pk, 99]), {"format": "csv"}).status_code == 404
