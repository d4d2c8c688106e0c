"""Numbers that programs read are the same in every language: in attributes, in files, in what scripts start from."""

import re
from html.parser import HTMLParser

import pytest
from django.urls import reverse

from fl.models import Assignment, Run
from tests.builders import fleet, started_run, step
from tests.fl.views.answers import state_of, text_of

pytestmark = pytest.mark.django_db

SPOKEN = {"alt", "aria-label", "content", "lang", "placeholder", "title"}
"""Attributes that people read; `content` is that of a `meta`."""
OTHERS = {"csrfmiddlewaretoken", "language"}
"""Fields that are another one in each answer, or in each language."""


class Attributes(HTMLParser):
    """Collects the attributes that programs read, all digits the same: some numbers depend on the time of day."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        # English scripts need no catalogue.
        if given.get("name") not in OTHERS and given.get("id") != "texts":
            # "… again" is what a run that is repeated is called at first.
            spoken = SPOKEN | ({"value"} if given.get("id") == "id_name" else set())
            read = [(name, value) for name, value in attributes if name not in spoken]
            self.found += [(tag, name, re.sub(r"\d+", "0", value or "")) for name, value in read]


def read_in(client, language, address):
    answer = client.get(address, headers={"Accept-Language": language})
    assert answer.status_code == 200, address
    return answer


@pytest.fixture
def thirds():
    """A run of three devices: of its second round one update is there, and the others are at a third of their work."""
    devices = fleet(3)
    run = started_run(cohort_size=3)
    step(run)
    for device in devices:
        device.send()
    step(run)
    step(run)
    devices[0].send()
    Assignment.objects.filter(round__run=run, round__number=2).exclude(state="accepted").update(progress=1 / 3)
    run.refresh_from_db()
    return run


def pages_of(run):
    device = Assignment.objects.filter(round__run=run).first().device_id
    tabs = ("run", "run-rounds", "run-devices", "run-config", "run-models", "run-events", "stop-run", "edit-run")
    yield from (reverse(name, args=[run.pk]) for name in tabs)
    yield reverse("run-round", args=[run.pk, 2])
    yield reverse("device", args=[device])
    yield f"{reverse('compare')}?run={run.pk}"
    yield f"{reverse('new-run')}?from={run.pk}"
    yield from (reverse(name) for name in ("overview", "run-list", "device-list", "event-list", "health-page"))


def test_attributes_that_programs_read_are_the_same_in_every_language(operator, thirds):
    for address in pages_of(thirds):
        english, german = (
            Attributes(read_in(operator, language, address).content.decode()).found for language in ("en", "de")
        )

        assert german == english, address


def test_scripts_start_from_the_same_numbers_in_every_language(viewer, thirds):
    english, german = (state_of(read_in(viewer, language, "/")) for language in ("en", "de"))

    changing = ("told", "now", "marks")
    assert {**german, **dict.fromkeys(changing)} == {**english, **dict.fromkeys(changing)}


def test_people_read_numbers_as_their_language_writes_them(viewer, thirds):
    loss = f"{thirds.models.get(version=1).metrics['loss']:.4f}"

    english, german = (text_of(read_in(viewer, language, "/")) for language in ("en", "de"))

    assert loss in english
    assert loss.replace(".", ",") in german
    assert loss not in german


def test_a_file_is_the_same_in_every_language(viewer, thirds):
    def files_in(language):
        for name in ("run-rounds", "event-list"):
            address = reverse(name, args=[thirds.pk] if name == "run-rounds" else [])
            yield b"".join(read_in(viewer, language, f"{address}?format=csv").streaming_content)

    assert list(files_in("de")) == list(files_in("en"))


def test_a_form_that_is_sent_back_with_an_error_takes_its_numbers_again(operator):
    posted = {"name": "", "task": "linear", "strategy": "fedavg", "learning_rate": "0.25", "rounds": "3"}

    answer = operator.post(reverse("new-run"), posted, headers={"Accept-Language": "de"})

    assert re.search(r'<input[^>]*name="learning_rate"[^>]*value="0\.25"', answer.content.decode())
    assert not Run.objects.exists()
