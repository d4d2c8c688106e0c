"""The forms of the pages: they read what was typed; whether it can be is for the use cases to say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django import forms
from django.utils.text import format_lazy
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from fl.models import Run
from fl.models.run import MAX_SEED
from fl.runs import RunPlan
from fl.strategies import STEPS, STRATEGIES, Parameter, Step, Strategy
from fl.tags import LONGEST_TAG, MAX_TAGS
from fl.tasks import task_names

LIFETIMES = {"900": _("15 minutes"), "3600": _("1 hour"), "86400": _("1 day")}
LONGEST_NAME = 100
"""Of a run."""


class EnrollForm(forms.Form):
    """What a token is for, and how long it waits."""

    label = forms.CharField(
        max_length=100,
        required=False,
        label=_("Device name"),
        help_text=_("What the device will be called; it can be changed on the device."),
    )
    lifetime = forms.ChoiceField(choices=list(LIFETIMES.items()), label=_("Expires after"))
    auto_approve = forms.BooleanField(
        required=False,
        label=_("Approve the device at once"),
        help_text=_("Otherwise it waits until an operator approves it here."),
    )

    @property
    def duration(self) -> timedelta:
        """How long the token lives."""
        return timedelta(seconds=int(self.cleaned_data["lifetime"]))


class DescribedForm(forms.Form):
    """How a run is called, tagged and noted: what may change at any time."""

    name = forms.CharField(
        max_length=LONGEST_NAME, label=_("Name"), help_text=_("Up to 100 characters; it need not be unique.")
    )
    tags = forms.CharField(
        max_length=MAX_TAGS * (LONGEST_TAG + 2),
        required=False,
        label=_("Tags"),
        help_text=format_lazy(
            _("Up to {most} short words with commas between them, to find the run again."), most=MAX_TAGS
        ),
    )
    notes = forms.CharField(
        max_length=2000,
        required=False,
        label=_("Notes"),
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("Why this run, what to look at; up to 2,000 characters."),
    )

    def typed_tags(self) -> list[str]:
        """Return the tags as they were typed."""
        return [tag.strip() for tag in self.cleaned_data["tags"].split(",") if tag.strip()]


class EditRunForm(DescribedForm):
    """A run's description, for `describe_run`."""

    def description(self) -> dict[str, Any]:
        """Return what was typed."""
        return {**self.cleaned_data, "tags": self.typed_tags()}


@dataclass(frozen=True)
class Whom:
    """Who is looked for: the criteria by which devices qualify, and how many a round needs."""

    criteria: dict[str, Any]
    quorum: int
    cohort_size: int


class NewRunForm(DescribedForm):
    """A run's plan; what is left empty is the task's own default."""

    task = forms.ChoiceField(
        label=_("Task"), help_text=_("Model, data and metrics. Only devices that offer it take part.")
    )
    strategy = forms.ChoiceField(
        choices=[(name, name) for name in STRATEGIES],
        widget=forms.RadioSelect,
        label=_("Strategy"),
        help_text=_("How the devices’ updates become the next global model."),
    )
    rounds = forms.IntegerField(
        min_value=1,
        initial=20,
        label=_("Rounds"),
        help_text=_("How often the devices train and the model is renewed: from 1."),
    )
    cohort_size = forms.IntegerField(
        min_value=1,
        initial=2,
        label=_("Devices in a round"),
        help_text=_("A round starts when so many are ready: from 1."),
    )
    quorum = forms.IntegerField(
        min_value=1,
        required=False,
        label=_("Quorum"),
        help_text=_("Updates that a round needs to count: from 1 to the devices in a round. Empty: all of them."),
    )
    min_examples = forms.IntegerField(
        min_value=1,
        max_value=2**31 - 1,
        initial=1,
        label=_("Least examples"),
        help_text=_("Devices that have fewer examples of the task are not selected: from 1."),
    )
    local_epochs = forms.IntegerField(
        min_value=1,
        required=False,
        label=_("Local epochs"),
        help_text=_("How often a device goes through its data in a round: from 1. Empty: the task’s own."),
    )
    batch_size = forms.IntegerField(
        min_value=1,
        required=False,
        label=_("Batch size"),
        help_text=_("Examples in a batch: from 1. Empty: the task’s own."),
    )
    learning_rate = forms.FloatField(
        required=False,
        label=_("Learning rate"),
        help_text=_("How far a device steps at each batch: above 0, often 0.001 to 0.5. Empty: the task’s own."),
    )
    momentum = forms.FloatField(
        required=False,
        label=_("Momentum"),
        help_text=_("How much of the last step is kept: from 0 to below 1. Empty: the task’s own."),
    )
    cohort_wait_seconds = forms.FloatField(
        min_value=0,
        initial=30,
        label=_("Patience, in seconds"),
        help_text=_("After this long a round starts with fewer devices, if the quorum is there: from 0."),
    )
    deadline_seconds = forms.FloatField(
        min_value=0.1,
        initial=600,
        label=_("Deadline, in seconds"),
        help_text=_("How long the devices of a round may train: from 0.1."),
    )
    max_update_norm = forms.FloatField(
        min_value=0,
        required=False,
        label=_("Largest update norm"),
        help_text=_("Updates whose L2 norm is larger are rejected: from 0. Empty: no limit."),
    )
    seed = forms.IntegerField(
        min_value=0,
        max_value=MAX_SEED,
        initial=0,
        label=_("Seed"),
        help_text=_("A whole number from 0. The same seed and devices give the same model."),
    )
    public = forms.BooleanField(
        required=False, label=_("Public"), help_text=_("Everybody may follow the run on /ws, without signing in.")
    )
    keep_updates = forms.BooleanField(
        required=False,
        label=_("Keep updates"),
        help_text=_("Keep the devices’ update files after each round; they take room on the disk."),
    )
    start = forms.BooleanField(required=False, initial=True, label=_("Start it at once"))

    ABOUT = ("name", "task", "tags", "notes")
    ROUNDS = ("rounds", "cohort_size", "quorum", "min_examples")
    TRAINING = ("local_epochs", "batch_size", "learning_rate", "momentum")
    ADVANCED = ("cohort_wait_seconds", "deadline_seconds", "max_update_norm", "seed", "public", "keep_updates")

    def __init__(self, data: Mapping[str, Any] | None = None, *, earlier: Run | None = None) -> None:
        """Make the form.

        Args:
            earlier: the run that is to be repeated, from which the fields are filled.
        """
        super().__init__(data)
        names = task_names()
        self.lost = [] if earlier is None else list(_lost(earlier, names))
        """What of the earlier run cannot be repeated here, a sentence each."""
        task_field = self.fields["task"]
        if isinstance(task_field, forms.ChoiceField):
            task_field.choices = [(name, name) for name in names]
        for strategy in STRATEGIES.values():
            self._add_parameters(strategy.name, strategy.parameters)
        for step in STEPS.values():
            self.fields[f"step-{step.name}"] = forms.BooleanField(required=False, label=step.name)
            self._add_parameters(f"step-{step.name}", step.parameters)
        self.initial = {} if earlier is None else _values_of(earlier)
        if self.initial.get("task") not in names:
            self.initial["task"] = names[0] if names else None
        if self.initial.get("strategy") not in STRATEGIES:
            self.initial["strategy"] = RunPlan.strategy

    def _add_parameters(self, owner: str, parameters: Mapping[str, Parameter]) -> None:
        for name, parameter in parameters.items():
            self.fields[f"{owner}-{name}"] = forms.FloatField(
                required=False,
                min_value=parameter.minimum,
                max_value=parameter.maximum,
                initial=parameter.default,
                label=name,
                help_text=_help_of(parameter),
            )

    def clean(self) -> dict[str, Any]:
        """Forget what is wrong with parameters that do not count: nobody sees them."""
        strategy = self.cleaned_data.get("strategy")
        for name in list(self.errors):
            owner, _, parameter = name.rpartition("-")
            is_ticked = owner.startswith("step-") and self.cleaned_data.get(owner)
            if parameter and owner and owner != strategy and not is_ticked:
                del self.errors[name]
        return self.cleaned_data

    # ── what the page shows ───────────────────────────────────────────────────────────────────────────────────────────

    def about_fields(self) -> Iterator[forms.BoundField]:
        """Yield the fields that say what it is."""
        return (self[name] for name in self.ABOUT)

    def round_fields(self) -> Iterator[forms.BoundField]:
        """Yield the fields that say who takes part, and how often."""
        return (self[name] for name in self.ROUNDS)

    def training_fields(self) -> Iterator[forms.BoundField]:
        """Yield the fields that say how devices train."""
        return (self[name] for name in self.TRAINING)

    def advanced_fields(self) -> Iterator[forms.BoundField]:
        """Yield the fields that a first run leaves alone."""
        return (self[name] for name in self.ADVANCED)

    def strategies(self) -> Iterator[tuple[Strategy, list[forms.BoundField]]]:
        """Yield the strategies with the fields of their parameters."""
        return ((each, self._parameters(each.name, each.parameters)) for each in STRATEGIES.values())

    def steps(self) -> Iterator[tuple[Step, forms.BoundField, list[forms.BoundField]]]:
        """Yield the steps before a strategy, each with what ticks it and the fields of its parameters."""
        for step in STEPS.values():
            owner = f"step-{step.name}"
            yield step, self[owner], self._parameters(owner, step.parameters)

    def advanced_wrong(self) -> bool:
        """Say whether something is wrong with a field that is folded away."""
        return any(name in self.ADVANCED or name.startswith("step-") for name in self.errors)

    def _parameters(self, owner: str, parameters: Mapping[str, Parameter]) -> list[forms.BoundField]:
        return [self[f"{owner}-{name}"] for name in parameters]

    # ── what was typed ────────────────────────────────────────────────────────────────────────────────────────────────

    def whom(self) -> Whom | None:
        """Return whom the form, as it is filled in now, looks for; None where it does not say."""
        cohort_size, strategy = self._value("cohort_size"), self._value("strategy")
        criteria = {"task": self._value("task"), "strategy": strategy, "min_examples": self._value("min_examples")}
        if cohort_size is None or None in criteria.values():
            return None
        criteria["strategy_config"] = self._config(strategy)
        return Whom(criteria, quorum=self._value("quorum") or cohort_size, cohort_size=cohort_size)

    def plan(self) -> RunPlan:
        """Return what was typed as a plan; parameters of other strategies and of steps not ticked are left out."""
        values = {name: value for name, value in self.cleaned_data.items() if "-" not in name and name != "start"}
        ticked = [step.name for step in STEPS.values() if self.cleaned_data[f"step-{step.name}"]]
        return RunPlan(
            **{**values, "tags": self.typed_tags()},
            strategy_config=self._config(values["strategy"]),
            steps=[{"name": name, "config": self._config(f"step-{name}")} for name in ticked],
        )

    def _value(self, name: str) -> Any:
        if self.is_bound:
            return self.cleaned_data.get(name)
        return self.get_initial_for_field(self.fields[name], name)

    def _config(self, owner: str) -> dict[str, float]:
        names = [name for name in self.fields if name.rpartition("-")[0] == owner]
        values = {name.rpartition("-")[2]: self._value(name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


def _help_of(parameter: Parameter) -> str:
    sentence = gettext("{help}; from {minimum} to {maximum}.")
    ends = {"minimum": f"{parameter.minimum:g}", "maximum": f"{parameter.maximum:g}"}
    return sentence.format(help=gettext(parameter.help), **ends)


def _again(name: str) -> str:
    """Return the name of a run that repeats the one of this name, or that one's repetition."""
    again = " " + gettext("again")
    return name.removesuffix(again)[: LONGEST_NAME - len(again)] + again


def _values_of(run: Run) -> dict[str, Any]:
    """Return a run's plan as the form's fields have it."""
    names = (*NewRunForm.ABOUT, *NewRunForm.ROUNDS, *NewRunForm.TRAINING, *NewRunForm.ADVANCED, "strategy")
    values = {name: getattr(run, name) for name in names}
    values |= {"name": _again(run.name), "tags": ", ".join(run.tags)}
    values |= {f"{run.strategy}-{name}": value for name, value in run.strategy_config.items()}
    for step in run.steps:
        values[f"step-{step['name']}"] = True
        values |= {f"step-{step['name']}-{name}": value for name, value in step.get("config", {}).items()}
    return values


def _lost(run: Run, tasks: list[str]) -> Iterator[str]:
    """Say what of an earlier run the form cannot repeat."""
    if run.task not in tasks:
        yield gettext("This server does not have the task {name} any more.").format(name=run.task)
    if run.strategy not in STRATEGIES:
        yield gettext("There is no strategy {name} any more.").format(name=run.strategy)
    steps = [step["name"] for step in run.steps]
    if unknown := sorted(set(steps) - set(STEPS)):
        yield gettext("There is no step {names} any more.").format(names=", ".join(unknown))
    elif steps != [name for name in STEPS if name in steps]:
        yield gettext("Its steps came in an order, or as often, as only the API can say.")
