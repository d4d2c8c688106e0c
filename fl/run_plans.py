"""A run's plan in words and as text to copy: what each setting means, and what asks for an equal run."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_noop as _

from fl import feed
from fl.models import Run
from fl.runs import RunPlan
from fl.strategies import STEPS, STRATEGIES

API_PATH = "/api/v1/runs/"


@dataclass(frozen=True)
class Setting:
    """One setting of a run: its value with its unit, and what it means."""

    name: str
    value: str
    unit: str
    meaning: str


MEANINGS: dict[str, tuple[str, str]] = {
    "task": ("", _("Model, data, loss and metrics; devices must offer it.")),
    "task_digest": ("", _("SHA-256 of the names, shapes and dtypes of the weights; a device's must be the same.")),
    "strategy": ("", _("How updates become the next global model.")),
    "seed": ("", _("The same seed and devices give the same model.")),
    "rounds": ("rounds", _("How many rounds the run has; failed ones count.")),
    "cohort_size": ("devices", _("How many devices a round selects.")),
    "quorum": ("updates", _("How many accepted updates a round needs; with fewer it fails.")),
    "cohort_wait_seconds": ("s", _("After this long a round starts with fewer devices, if the quorum is there.")),
    "deadline_seconds": ("s", _("How long the devices of a round may train.")),
    "min_examples": ("examples", _("Devices with fewer are not selected.")),
    "max_update_norm": ("", _("Updates with a larger L2 norm are rejected.")),
    "local_epochs": ("epochs", _("How often a device goes through its data in a round.")),
    "batch_size": ("examples", _("How many examples make one step of a device's training.")),
    "learning_rate": ("", _("How far a device goes in one step.")),
    "momentum": ("", _("Share of the last step that a device's next one keeps.")),
    "public": ("", _("Whether everybody may follow the run, on /ws.")),
    "keep_updates": ("", _("Whether the files of updates stay after their round.")),
    "tags": ("", _("Words by which the run is found; they can be changed.")),
    "notes": ("", _("What people wrote down about it; they can be changed.")),
}
"""Field of a run → unit and meaning, both in English, in the order in which pages show them."""


def settings_of(run: Run) -> list[Setting]:
    """Return all settings of a run, with those of its strategy after its name and its steps after that."""
    found = []
    for name, (unit, meaning) in MEANINGS.items():
        value = getattr(run, name)
        found.append(Setting(name, _shown(value), _unit(unit, value), gettext(meaning)))
        if name == "strategy":
            found += [*_of_strategy(run), *_of_steps(run)]
    return found


def _of_strategy(run: Run) -> Iterator[Setting]:
    strategy = STRATEGIES.get(run.strategy)
    for name, value in sorted(run.strategy_config.items()):
        parameter = strategy.parameters.get(name) if strategy else None
        yield Setting(f"{run.strategy}.{name}", _shown(value), "", gettext(parameter.help) if parameter else "")


def _of_steps(run: Run) -> Iterator[Setting]:
    for place, step in enumerate(run.steps, start=1):
        known = STEPS.get(step["name"])
        meaning = gettext(known.description) if known else ""
        yield Setting(gettext("step {place}").format(place=place), step["name"], "", meaning)
        for name, value in sorted(step.get("config", {}).items()):
            parameter = known.parameters.get(name) if known else None
            yield Setting(f"{step['name']}.{name}", _shown(value), "", gettext(parameter.help) if parameter else "")


def _unit(unit: str, value: object) -> str:
    """Return the word for a unit, in the singular where there is one of it, and none for no limit."""
    if value is None:
        return ""
    count = value if isinstance(value, int) else 2
    words = {
        "rounds": ngettext("round", "rounds", count),
        "devices": ngettext("device", "devices", count),
        "updates": ngettext("update", "updates", count),
        "examples": ngettext("example", "examples", count),
        "epochs": ngettext("epoch", "epochs", count),
    }
    return words.get(unit, unit)


def _shown(value: object) -> str:
    match value:
        case None:
            return gettext("no limit")
        case bool():
            return gettext("yes") if value else gettext("no")
        case float():
            return feed.plain(value)
        case list():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def plan_of(run: Run) -> dict[str, Any]:
    """Return the body by which `POST /api/v1/runs/` makes an equal run; nothing is left to defaults."""
    values = {field.name: getattr(run, field.name) for field in fields(RunPlan)}
    return {**values, "steps": list(run.steps)}


def as_json(run: Run) -> str:
    """Return the plan as JSON."""
    return json.dumps(plan_of(run), indent=2, ensure_ascii=False)


def as_toml(run: Run) -> str:
    """Return the plan as TOML; what is None is left out, since TOML has no word for it and it is the default."""
    plan = plan_of(run)
    tables = {"strategy_config": plan.pop("strategy_config"), "steps": plan.pop("steps")}
    lines = _toml_pairs(plan)
    if tables["strategy_config"]:
        lines += ["", "[strategy_config]", *_toml_pairs(tables["strategy_config"])]
    for step in tables["steps"]:
        plain = {name: value for name, value in step.items() if name != "config"}
        lines += ["", "[[steps]]", *_toml_pairs(plain)]
        if step.get("config"):
            lines += ["[steps.config]", *_toml_pairs(step["config"])]
    return "\n".join(lines) + "\n"


def as_curl(run: Run, server: str, *, session_cookie: str, csrf_cookie: str) -> str:
    """Return a command for a shell that asks a server for an equal run, as whoever is signed in in a browser.

    Args:
        server: the server's address, without a slash at its end.
        session_cookie, csrf_cookie: names of the cookies whose values the shell is to have in `QFLARE_SESSION` and
            `QFLARE_CSRF`; they are nowhere in the text.
    """
    address = shlex.quote(f"{server}{API_PATH}")
    return " \\\n  ".join(
        [
            f"curl --fail-with-body -X POST {address}",
            f'--cookie "{session_cookie}=$QFLARE_SESSION; {csrf_cookie}=$QFLARE_CSRF"',
            '--header "X-CSRFToken: $QFLARE_CSRF"',
            f"--header {shlex.quote(f'Referer: {server}/')}",
            "--header 'Content-Type: application/json'",
            f"--data {shlex.quote(as_json(run))}",
        ]
    )


def _toml_pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in values.items() if value is not None]


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value)
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case _:
            # JSON's escapes are TOML's, but for DEL, which JSON lets stand.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
