"""The forms of the pages: they read what was typed; whether it can be is for the use cases to say."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django import forms

from fl.models.run import MAX_SEED
from fl.runs import RunPlan
from fl.strategies import STRATEGIES
from fl.tasks import task_names

LIFETIMES = {"900": "15 minutes", "3600": "1 hour", "86400": "1 day"}
ADVANCED = (
    "cohort_wait_seconds",
    "deadline_seconds",
    "min_examples",
    "max_update_norm",
    "seed",
    "public",
    "keep_updates",
)


class EnrollForm(forms.Form):
    """What a token is for, and how long it waits."""

    label = forms.CharField(
        max_length=100,
        required=False,
        label="Device name",
        help_text="What the device will be called; it can be changed on the device.",
    )
    lifetime = forms.ChoiceField(choices=list(LIFETIMES.items()), label="Expires after")
    auto_approve = forms.BooleanField(
        required=False,
        label="Approve the device at once",
        help_text="Otherwise it waits until an operator approves it here.",
    )

    @property
    def duration(self) -> timedelta:
        """How long the token lives."""
        return timedelta(seconds=int(self.cleaned_data["lifetime"]))


class NewRunForm(forms.Form):
    """A run's plan; what is left empty is the task's own default."""

    name = forms.CharField(max_length=100, label="Name")
    task = forms.ChoiceField(label="Task", help_text="Model, data and metrics; devices must offer it.")
    strategy = forms.ChoiceField(
        choices=[(name, f"{name}: {strategy.description}") for name, strategy in STRATEGIES.items()],
        label="Strategy",
        help_text="How updates become the next global model.",
    )
    rounds = forms.IntegerField(min_value=1, initial=20, label="Rounds")
    cohort_size = forms.IntegerField(
        min_value=1, initial=2, label="Devices in a round", help_text="A round starts when so many are ready."
    )
    quorum = forms.IntegerField(
        min_value=1,
        required=False,
        label="Quorum",
        help_text="Updates that a round needs to count. Empty: all of them.",
    )
    local_epochs = forms.IntegerField(
        min_value=1, required=False, label="Local epochs", help_text="Empty: the task's own."
    )
    batch_size = forms.IntegerField(min_value=1, required=False, label="Batch size", help_text="Empty: the task's own.")
    learning_rate = forms.FloatField(required=False, label="Learning rate", help_text="Empty: the task's own.")
    momentum = forms.FloatField(required=False, label="Momentum", help_text="Empty: the task's own.")
    cohort_wait_seconds = forms.FloatField(
        min_value=0,
        initial=30,
        label="Patience, in seconds",
        help_text="After this long a round starts with fewer devices, if the quorum is there.",
    )
    deadline_seconds = forms.FloatField(
        min_value=0.1, initial=600, label="Deadline, in seconds", help_text="How long the devices of a round may train."
    )
    min_examples = forms.IntegerField(
        min_value=1, initial=1, label="Least examples", help_text="Devices with fewer are not selected."
    )
    max_update_norm = forms.FloatField(
        min_value=0,
        required=False,
        label="Largest update norm",
        help_text="Larger updates are rejected. Empty: no limit.",
    )
    seed = forms.IntegerField(
        min_value=0,
        max_value=MAX_SEED,
        initial=0,
        label="Seed",
        help_text="The same seed and devices give the same model.",
    )
    public = forms.BooleanField(required=False, label="Public", help_text="Everybody may follow it, on /ws.")
    keep_updates = forms.BooleanField(
        required=False, label="Keep updates", help_text="Keep the devices' update files after each round."
    )
    start = forms.BooleanField(required=False, initial=True, label="Start it at once")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        task_field, start = self.fields["task"], self.fields.pop("start")
        if isinstance(task_field, forms.ChoiceField):
            task_field.choices = [(name, name) for name in task_names()]
        for strategy in STRATEGIES.values():
            for name, parameter in strategy.parameters.items():
                self.fields[f"{strategy.name}-{name}"] = forms.FloatField(
                    required=False,
                    min_value=parameter.minimum,
                    max_value=parameter.maximum,
                    initial=parameter.default,
                    label=f"{strategy.name}: {name}",
                    help_text=parameter.help,
                )
        self.fields["start"] = start

    def parameter_fields(self) -> Iterator[forms.BoundField]:
        """Yield the fields of strategies' parameters."""
        return (self[name] for name in self.fields if "-" in name)

    def advanced_fields(self) -> Iterator[forms.BoundField]:
        """Yield the fields that a first run leaves alone."""
        return (self[name] for name in ADVANCED)

    def basic_fields(self) -> Iterator[forms.BoundField]:
        """Yield all other fields, but for `start`."""
        return (self[name] for name in self.fields if "-" not in name and name not in (*ADVANCED, "start"))

    def plan(self) -> RunPlan:
        """Return what was typed as a plan; parameters of other strategies are left out."""
        values = dict(self.cleaned_data)
        values.pop("start")
        prefix = f"{values['strategy']}-"
        typed = {name: value for name, value in values.items() if "-" in name}
        config = {name.removeprefix(prefix): value for name, value in typed.items() if name.startswith(prefix)}
        plain = {name: value for name, value in values.items() if "-" not in name}
        return RunPlan(**plain, strategy_config={name: value for name, value in config.items() if value is not None})
