"""The list of runs: each column sorts truly, filters combine, and SQL's best is that of fl.metrics."""

from dataclasses import replace

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from fl import runs
from fl.metrics import score
from fl.models import GlobalModel, Round, Run
from fl.queries.run_list import COLUMNS, RUNS_A_PAGE, Wishes, run_list, run_number
from fl.roles import Role
from fl.visibility import Principal
from tests.builders import NOW, PLAN, at, person

pytestmark = pytest.mark.django_db

VIEWER = Principal(role=Role.VIEWER)


def make(name="a run", *, by=None, now=NOW, **changes):
    return runs.create_run(plan=replace(PLAN, name=name, **changes), created_by=by, now=now)


def publish(run, version, metrics, device_metrics=None, *, is_best=False):
    """Give a run a published version with these metrics; those of devices belong to its round."""
    parent = run.models.order_by("-version").first()
    round_ = None
    if version:
        moments = {"opened_at": NOW, "started_at": NOW, "deadline_at": at(60), "ended_at": at(10)}
        round_ = Round.objects.create(
            run=run,
            number=version,
            state="completed",
            base_model=parent,
            device_metrics=device_metrics or {},
            **moments,
        )
    model = GlobalModel.objects.create(
        run=run,
        version=version,
        parent=parent,
        round=round_,
        digest="0" * 64,
        file="f",
        size=1,
        strategy_state_file="s",
        metrics=metrics,
        created_at=NOW,
        published_at=NOW,
    )
    if is_best:
        Run.objects.filter(pk=run.pk).update(best_model=model)
    return model


def named(found):
    return [row.run.name for row in found.rows]


def wished(now=NOW, **wishes):
    return run_list(VIEWER, Wishes(**wishes), now=now)


@pytest.fixture
def varied():
    """Five runs that differ in every column: a new one, two at work, one that ended, and one without data here."""
    ada, bob = person("ada"), person("Bob")
    first = make("beta", by=bob, now=at(1), rounds=5, cohort_size=9, quorum=1)
    second = make("Alpha", by=ada, now=at(2), strategy="fedprox")
    third = make("gamma", by=ada, now=at(3), strategy="fedadam", cohort_size=4)
    fourth = make("delta", now=at(4), cohort_size=5)
    make("epsilon", now=at(5), task="digits", cohort_size=7)
    for run, best, last in ((first, 0.5, 0.25), (second, 0.75, 0.5)):
        publish(run, 0, {"accuracy": best, "loss": 1.0}, is_best=True)
        publish(run, 1, {"accuracy": last, "loss": 1.0})
    publish(third, 0, None)
    publish(third, 1, None, {"accuracy": {"mean": 0.625, "p10": 0.5, "p90": 0.75}}, is_best=True)
    publish(fourth, 0, {"accuracy": None, "loss": 0.5}, is_best=True)
    Run.objects.filter(pk=first.pk).update(state="running", started_at=at(100))
    Run.objects.filter(pk=second.pk).update(state="completed", started_at=at(10), ended_at=at(30))
    Run.objects.filter(pk=third.pk).update(state="paused", started_at=at(50))
    return [first, second, third, fourth]


STATES = ["pending", "running", "paused", "completed", "failed", "stopped"]


def headline_score(figure):
    return None if figure is None else figure.value if figure.name == "accuracy" else -figure.value


KEYS = {
    "name": lambda row: row.run.name.lower(),
    "state": lambda row: STATES.index(row.run.state),
    "task": lambda row: row.run.task,
    "strategy": lambda row: row.run.strategy,
    "rounds": lambda row: row.rounds_done,
    "devices": lambda row: row.run.cohort_size,
    "best": lambda row: headline_score(row.figures.best),
    "last": lambda row: headline_score(row.figures.last),
    "duration": lambda row: row.seconds(at(200)),
    "started_by": lambda row: row.run.created_by and row.run.created_by.username.lower(),
    "created": lambda row: row.run.created_at,
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("dash", ["", "-"])
def test_each_column_sorts_and_what_has_no_value_stands_last(varied, column, dash):
    rows = wished(at(200), sort=dash + column).rows

    values = [KEYS[column](row) for row in rows]
    known = [value for value in values if value is not None]
    assert len(set(known)) > 1
    assert known == sorted(known, reverse=bool(dash))
    assert values == known + [None] * (len(values) - len(known))


def test_best_and_last_are_the_servers_or_marked_as_the_devices_own(varied):
    rows = {row.run.name: row.figures for row in wished().rows}

    assert (rows["beta"].best.value, rows["beta"].last.value, rows["beta"].best.on_devices) == (0.5, 0.25, False)
    assert (rows["gamma"].best.value, rows["gamma"].best.on_devices) == (0.625, True)
    assert (rows["delta"].best.name, rows["delta"].best.value) == ("loss", 0.5)
    assert rows["epsilon"].best is None


@pytest.mark.parametrize(
    ("metrics", "device_metrics"),
    [
        ({"accuracy": 0.5, "loss": 2.0}, {}),
        ({"accuracy": None, "loss": 2.0}, {}),
        ({"accuracy": None, "loss": None}, {"accuracy": {"mean": 0.9, "p10": 0.9, "p90": 0.9}}),
        ({"loss": 0.0}, {}),
        ({"loss": 1e300}, {}),
        ({"accuracy": 1}, {}),
        ({"accuracy": 1e-12}, {}),
        ({}, {"loss": {"mean": 3.0, "p10": 3.0, "p90": 3.0}}),
        (None, {"loss": {"mean": 3.0, "p10": 3.0, "p90": 3.0}}),
        (None, {"accuracy": {"mean": None, "p10": None, "p90": None}, "loss": {"mean": 3.0, "p10": 3.0, "p90": 3.0}}),
        (None, {}),
    ],
)
def test_the_order_by_best_and_last_is_that_of_the_score(metrics, device_metrics):
    run = make("probe")
    publish(run, 0, {"accuracy": 0.0})
    publish(run, 1, metrics, device_metrics, is_best=True)
    marks = []
    for value in (-5.0, -2.5, -1.0, 0.1, 0.4, 0.7):
        other = make(str(value))
        publish(other, 0, {"accuracy": value} if value > 0 else {"loss": -value}, is_best=True)
        marks.append(value)

    expected = score(metrics, device_metrics)
    below = [str(value) for value in marks if expected is not None and value < expected]
    for sort in ("best", "last"):
        order = named(wished(sort=sort))
        place = order.index("probe")
        assert order[:place] == (below if expected is not None else [str(value) for value in marks])


@pytest.mark.parametrize("sort", ["best", "last"])
def test_a_run_whose_metrics_are_null_missing_or_not_finite_stands_last_either_way(sort):
    for name, metrics in [("good", {"accuracy": 0.9}), ("bad", {"accuracy": 0.1}), ("null", None), ("missing", {})]:
        publish(make(name), 0, metrics, is_best=True)
    # As what is not finite is kept: no database takes NaN in JSON.
    publish(make("not finite"), 0, {"accuracy": None, "loss": None}, is_best=True)
    make("without a model")

    unknown = ["without a model", "not finite", "missing", "null"]
    assert named(wished(sort=sort)) == ["bad", "good", *unknown]
    assert named(wished(sort=f"-{sort}")) == ["good", "bad", *unknown]


def test_filters_combine(varied):
    runs.describe_run(run=varied[0], tags=["Winter", "old"], now=NOW)
    runs.describe_run(run=varied[1], tags=["winter"], now=NOW)

    assert named(wished(tag="winter", sort="name")) == ["Alpha", "beta"]
    assert named(wished(tag="winter", strategy="fedprox")) == ["Alpha"]
    assert named(wished(tag="winter", state="running", task="linear", text="BET")) == ["beta"]
    assert named(wished(tag="winter", state="paused")) == []


def test_a_tag_is_not_found_by_a_part_of_it_and_may_have_any_letters(varied):
    runs.describe_run(run=varied[0], tags=["100 % müde_x", 'a"b'], now=NOW)
    runs.describe_run(run=varied[1], tags=["100 x müde_x"], now=NOW)

    assert named(wished(tag="100 % müde_x")) == ["beta"]
    assert named(wished(tag='a"b')) == ["beta"]
    assert wished(tag="100").wishes.tag == ""
    assert wished().facets.tags == ["100 % müde_x", "100 x müde_x", 'a"b']


def test_a_text_finds_names_and_labels(varied):
    label = varied[2].label

    assert named(wished(text="amm")) == ["gamma"]
    assert named(wished(text=label.upper())) == ["gamma"]
    assert named(wished(text="%")) == []


def test_what_cannot_be_is_left_out_of_the_wishes(varied):
    found = wished(state="x", task="x", strategy="x", tag="x", sort="-password", page=99)

    assert found.wishes == Wishes()
    assert found.total == len(found.rows) == 5


def test_pages_follow_each_other_without_repetition():
    names = [f"run-{number:02d}" for number in range(2 * RUNS_A_PAGE + 3)]
    for name in names:
        make(name)

    pages = [named(wished(page=number, sort="strategy")) for number in (1, 2, 3)]

    assert [len(page) for page in pages] == [RUNS_A_PAGE, RUNS_A_PAGE, 3]
    assert sorted(name for page in pages for name in page) == names
    assert wished(page=2).pages == 3


def test_ticked_runs_of_other_pages_come_along():
    made = [make() for _ in range(RUNS_A_PAGE + 2)]

    found = run_list(VIEWER, Wishes(), now=NOW, ticked=[made[0].pk, made[-1].pk, 10**6])

    assert [run.pk for run in found.chosen] == [made[0].pk]
    assert found.newest == made[-1].pk


def test_only_runs_that_one_may_see_are_listed():
    make("secret")
    make("open", public=True)

    assert named(run_list(Principal(), Wishes(), now=NOW)) == ["open"]


def test_the_number_of_queries_does_not_grow_with_the_rows(varied):
    few = _count()
    for number in range(RUNS_A_PAGE):
        run = make(f"run {number}")
        publish(run, 0, {"accuracy": 0.5}, is_best=True)
        publish(run, 1, {"accuracy": 0.5})

    assert _count() == few <= 9


def _count():
    with CaptureQueriesContext(connection) as captured:
        wished(sort="-best")
    return len([query for query in captured if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "SET"))])


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("r-0042", 42), ("R-42 ", 42), ("", None), ("r-", None), ("-1", None), ("1" * 10, None), ("²", None)],
)
def test_a_run_is_meant_by_its_number_or_label(text, number):
    assert run_number(text) == number
