"""Queries of the busiest paths: the ORM writes their SQL once, and they run again with other values.

To write a query's SQL takes Django about ten times as long as it takes SQLite to answer. Nobody notices that on a page;
but every device asks the same few questions in every round, and there it was a third of what the server did.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db import connection
from django.db.models import Model, QuerySet, Value
from django.db.models.query import get_related_populators
from django.db.models.sql import UpdateQuery

T = TypeVar("T")

_FIRST_STAND_IN = 2**62
"""Numbers that stand in for those to come while the SQL is written; no row of ours has them."""


@dataclass(frozen=True)
class _Plan:
    """A query for one kind of database: its SQL, and how its rows become what the query set says."""

    sql: str
    parameters: tuple[Any, ...]
    places: tuple[tuple[int, str], ...]
    """Where in `parameters` each named number goes."""
    compiler: Any
    converters: dict[int, Any]

    def filled(self, numbers: Mapping[str, int]) -> list[Any]:
        """Return the parameters with these numbers in their places."""
        parameters = list(self.parameters)
        for place, name in self.places:
            # PostgreSQL's driver is told which integer it is by the value's type.
            parameters[place] = type(parameters[place])(numbers[name])
        return parameters


class Prepared(Generic[T]):
    """A query set that is asked for again and again, with other numbers.

    Args:
        build: makes the query set from numbers, each compared with one column: of model instances, with related ones
            and deferred columns as it says, or of `values_list` tuples.
    """

    def __init__(self, build: Callable[..., QuerySet[Any, T]]) -> None:
        self._build = build
        self._names = tuple(inspect.signature(build).parameters)
        self._plans: dict[str, _Plan] = {}

    def all(self, **numbers: int) -> list[T]:
        """Return what the query set would, in its order."""
        plan = self._plans.get(connection.vendor) or self._plan()
        with connection.cursor() as cursor:
            cursor.execute(plan.sql, plan.filled(numbers))
            rows = cursor.fetchall()
        if plan.converters:
            rows = [tuple(row) for row in plan.compiler.apply_converters(rows, plan.converters)]
        return rows if plan.compiler.query.values_select else _instances(plan.compiler, rows)

    def first(self, **numbers: int) -> T | None:
        """Return the first row, or None where there is none."""
        return next(iter(self.all(**numbers)), None)

    def _plan(self) -> _Plan:
        stand_ins = _stand_ins(self._names)
        compiler = self._build(**stand_ins).query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        converters = compiler.get_converters([expression for expression, _, _ in compiler.select])
        plan = _Plan(sql, tuple(parameters), _places(parameters, stand_ins), compiler, converters)
        self._plans[connection.vendor] = plan
        return plan


class PreparedUpdate:
    """An UPDATE that is made again and again, with other values.

    Args:
        build: makes the query set whose rows are to change, from numbers, each compared with one column.
        columns: what is changed.
    """

    def __init__(self, build: Callable[..., QuerySet[Any]], *columns: str) -> None:
        self._build = build
        self._names = tuple(inspect.signature(build).parameters)
        self._columns = columns
        self._plans: dict[str, tuple[_Plan, list[tuple[int, Any]]]] = {}

    def __call__(self, values: Mapping[str, object], **numbers: int) -> int:
        """Set each column to its value in `values`; return how many rows there were, as `QuerySet.update` does."""
        plan, places = self._plans.get(connection.vendor) or self._plan()
        parameters = plan.filled(numbers)
        for place, field in places:
            parameters[place] = field.get_db_prep_save(values[field.name], connection)
        with connection.cursor() as cursor:
            cursor.execute(plan.sql, parameters)
            changed: int = cursor.rowcount
        return changed

    def _plan(self) -> tuple[_Plan, list[tuple[int, Any]]]:
        stand_ins = _stand_ins(self._names)
        query: Any = self._build(**stand_ins).query.chain(UpdateQuery)
        marks = {name: object() for name in self._columns}
        query.add_update_values({name: Value(mark) for name, mark in marks.items()})
        compiler = query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        places = [(parameters.index(mark), query.get_meta().get_field(name)) for name, mark in marks.items()]
        plan = _Plan(sql, tuple(parameters), _places(parameters, stand_ins), compiler, {})
        self._plans[connection.vendor] = plan, places
        return plan, places


def _stand_ins(names: Sequence[str]) -> dict[str, int]:
    return {name: _FIRST_STAND_IN + index for index, name in enumerate(names)}


def _places(parameters: Sequence[Any], stand_ins: Mapping[str, int]) -> tuple[tuple[int, str], ...]:
    return tuple((parameters.index(stand_in), name) for name, stand_in in stand_ins.items())


def _instances(compiler: Any, rows: Sequence[Sequence[Any]]) -> list[Any]:
    """Make model instances of rows, as a query set does when it is iterated."""
    model: type[Model] = compiler.klass_info["model"]
    fields = compiler.klass_info["select_fields"]
    start, end = fields[0], fields[-1] + 1
    names = [expression.target.attname for expression, _, _ in compiler.select[start:end]]
    arguments = compiler.klass_info, compiler.select, connection.alias
    related = get_related_populators(*arguments)  # type: ignore[call-arg]  # the stubs are of a Django with one more
    made = []
    for row in rows:
        instance = model.from_db(connection.alias, names, row[start:end])
        for populator in related:
            populator.populate(row, instance)
        made.append(instance)
    return made
