"""The pages of the trash: many runs at once, asked about by name; who comes to a run's page is told where it is."""

import re

import pytest
from django.urls import reverse

from fl import runs, trash
from fl.models import Run
from tests.builders import NOW, person, started_run
from tests.fl.views.answers import text_of

pytestmark = pytest.mark.django_db


def ended(name="a run"):
    run = started_run(name=name)
    runs.stop_run(run=run, now=NOW)
    run.refresh_from_db()
    return run


def asked(client, *chosen):
    return client.get(reverse("move-to-trash"), {"run": [run.pk for run in chosen]})


def moved(client, *chosen):
    return client.post(reverse("move-to-trash"), {"run": [run.pk for run in chosen]}, follow=True)


def in_trash():
    return set(Run.objects.filter(deleted_at__isnull=False))


# ── moving ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_list_offers_admins_to_move_what_is_ticked(admin):
    ended()

    page = admin.get(reverse("run-list")).content.decode()

    (button,) = re.findall(r"<button[^>]*data-throw[^>]*>", page)
    assert f'formaction="{reverse("move-to-trash")}"' in button
    assert 'type="submit"' in button
    assert f'href="{reverse("trash")}"' in page


def test_many_runs_are_named_before_they_go_and_nothing_goes_before(admin):
    chosen = [ended(f"winter {number}") for number in range(3)]
    kept = ended("summer")

    page = asked(admin, *chosen)

    assert "Move 3 runs to the trash?" in text_of(page)
    assert all(f"{run.label} {run.name}" in text_of(page) for run in chosen)
    assert kept.name not in text_of(page)
    assert in_trash() == set()


def test_what_was_asked_about_goes_and_is_said(admin):
    chosen, kept = [ended("winter one"), ended("winter two")], ended("summer")

    page = text_of(moved(admin, *chosen))

    assert in_trash() == set(chosen)
    assert "2 runs are in the trash now." in page
    assert (kept.name in page, "winter" in page) == (True, False)


def test_what_cannot_go_is_named_with_its_reason_and_the_others_go(admin):
    going, protected, good = started_run(name="going"), ended("protected"), ended("good")
    trash.protect_run(run=protected, now=NOW)

    page = text_of(asked(admin, going, protected, good))
    after = text_of(moved(admin, going, protected, good))

    assert "Move 1 run to the trash?" in page
    for text in (page, after):
        assert f"Run {going.label} is running. Stop it first." in text
        assert f"Run {protected.label} is protected. End its protection first." in text
    assert "1 run is in the trash now." in after
    assert in_trash() == {good}


@pytest.mark.parametrize("query", ["", "?run=99", "?run=x&run=-1&run=99999999999999"])
def test_without_a_run_there_is_nothing_to_move(admin, query):
    page = admin.get(reverse("move-to-trash") + query)

    assert "No run is chosen." in text_of(page)
    assert 'class="button danger solid"' not in page.content.decode()


def test_a_hundred_ticks_survive_the_turning_of_pages(admin):
    made = [
        runs.create_run(plan=runs.RunPlan(name=f"n{n}", task="linear"), created_by=None, now=NOW) for n in range(60)
    ]

    page = admin.get(reverse("run-list"), {"run": [run.pk for run in made]}).content.decode()

    assert len(re.findall(r'name="run" value="\d+" checked', page)) == 60


# ── the trash itself ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_trash_lists_what_lies_there_and_restores_it(admin, settings):
    settings.QFLARE_TRASH_DAYS = 30
    run = ended("winter")
    trash.move_to_trash(run=run, now=NOW)

    page = admin.get(reverse("trash"))
    after = admin.post(reverse("restore-run", args=[run.pk]), follow=True)

    assert f"winter {run.label}" in text_of(page)
    assert "2030-01-01 12:00:00" in text_of(page)
    assert "2030-01-31 12:00:00" in text_of(page)
    assert f"{run} is restored." in text_of(after)
    assert "The trash is empty." in text_of(after)
    assert in_trash() == set()


def test_the_trash_turns_pages(admin):
    for number in range(52):
        trash.move_to_trash(run=ended(f"run-{number:02d}"), now=NOW)

    first, second = (text_of(admin.get(reverse("trash"), {"page": page})) for page in (1, 2))

    assert "52 runs" in first
    assert ("run-51" in first, "run-01" in first) == (True, False)
    assert "run-01" in second


def test_what_was_restored_already_is_said(admin):
    run = ended()

    page = admin.post(reverse("restore-run", args=[run.pk]), follow=True)

    assert f"There is no run {run.pk} in the trash." in text_of(page)


TABS = ["run", "run-config", "run-devices", "run-events", "run-models", "run-rounds", "edit-run", "stop-run"]


@pytest.mark.parametrize("name", TABS)
def test_every_page_of_a_run_in_the_trash_says_so_and_lets_an_admin_restore_it(admin, name):
    run = ended("winter")
    trash.move_to_trash(run=run, now=NOW)

    page = admin.get(reverse(name, args=[run.pk]))

    assert page.status_code == 404
    assert "This run is in the trash" in text_of(page)
    assert "winter" in text_of(page)
    assert f'action="{reverse("restore-run", args=[run.pk])}"' in page.content.decode()


def test_a_viewer_is_told_too_and_offered_nothing(viewer):
    run = ended()
    trash.move_to_trash(run=run, now=NOW)

    page = viewer.get(reverse("run", args=[run.pk]))

    assert page.status_code == 404
    assert "Until then an admin can restore it." in text_of(page)
    assert "restore-run" not in page.content.decode()
    assert reverse("restore-run", args=[run.pk]) not in page.content.decode()


def test_a_restored_run_leads_back_to_its_page(admin):
    run = ended()
    trash.move_to_trash(run=run, now=NOW)
    back = reverse("run", args=[run.pk])

    response = admin.post(reverse("restore-run", args=[run.pk]), {"next": back}, follow=True)

    assert response.redirect_chain == [(back, 302)]
    assert response.status_code == 200


def test_a_run_that_never_was_is_not_found(admin):
    page = admin.get(reverse("run", args=[99]))

    assert page.status_code == 404
    assert "in the trash" not in text_of(page)


# ── protection ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_admin_protects_a_run_on_its_page_and_ends_that(admin):
    run = ended()
    page, seen = reverse("run", args=[run.pk]), []

    for name in ("protect-run", "unprotect-run"):
        assert f'action="{reverse(name, args=[run.pk])}"' in admin.get(page).content.decode()
        response = admin.post(reverse(name, args=[run.pk]), follow=True)
        seen.append("Protected" in text_of(response))
        assert seen[-1] == ("Protected" in text_of(admin.get(reverse("run-list"))))

    assert seen == [True, False]


def test_the_way_to_the_trash_shows_once_a_run_has_ended_and_not_while_it_is_protected(admin):
    going, over, kept = started_run(), ended(), ended()
    trash.protect_run(run=kept, now=NOW)

    pages = [admin.get(reverse("run", args=[run.pk])).content.decode() for run in (going, over, kept)]

    links = [re.findall(r"<a[^>]*data-throw[^>]*>", page) for page in pages]
    assert [len(found) for found in links] == [1, 1, 0]
    assert "hidden" in links[0][0]
    assert "hidden" not in links[1][0]


# ── who may ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_only_admins_may_is_drawn_for_no_operator_and_refused_all_the_same(operator):
    run, gone = ended(), ended()
    trash.move_to_trash(run=gone, now=NOW)
    pages = [operator.get(reverse("run-list")), operator.get(reverse("run", args=[run.pk]))]

    refused = [
        operator.get(reverse("trash")),
        asked(operator, run),
        operator.post(reverse("move-to-trash"), {"run": run.pk}),
        operator.post(reverse("restore-run", args=[gone.pk])),
        operator.post(reverse("protect-run", args=[run.pk])),
        operator.post(reverse("unprotect-run", args=[run.pk])),
    ]

    assert [response.status_code for response in refused] == [403] * 6
    assert not any(word in page.content.decode() for page in pages for word in ("data-throw", "keeping", "/trash/"))
    run.refresh_from_db()
    assert (in_trash(), run.is_protected) == ({gone}, False)


def test_moving_by_a_get_moves_nothing_and_strangers_are_sent_to_the_login(client):
    run = ended()

    assert asked(client, run).url.startswith("/login/")
    client.force_login(person("ada", "admin"))
    asked(client, run)

    assert in_trash() == set()
