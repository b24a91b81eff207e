"""The small part of jinja2's runtime that compiled templates call.

Importing jinja2 itself takes a third of the time of a small run. This module behaves like jinja2
for templates that only loop, branch, join strings and call filters; a test renders every template
with both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from protoc_gen_protoflow import text

#: The filters of the templates.
FILTERS: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (
        text.annotation,
        text.assignment,
        text.call,
        text.docstring,
        text.import_line,
        text.literal,
        text.opened,
        text.sequence,
        text.signature,
    )
}

#: Marks a variable that was not given.
missing: Any = object()


class TemplateRuntimeError(Exception):
    """A template has an error."""


class Undefined:
    """A variable that was not given. This is a bug, so every use raises."""

    def __init__(self, name: str) -> None:
        raise TemplateRuntimeError(f"{name} is undefined")


def internalcode(function: Callable[..., NoReturn]) -> Callable[..., NoReturn]:
    """In jinja2, hides functions from tracebacks; here it returns the function unchanged."""
    return function


def str_join(values: Iterable[str]) -> str:
    """Joins strings; templates join no other values."""
    return "".join(values)


class Context:
    """The variables of a template."""

    def __init__(self, variables: Mapping[str, object]) -> None:
        self._variables = variables

    def resolve_or_missing(self, name: str) -> Any:
        """Returns a variable by its name."""
        return self._variables.get(name, missing)


class Environment:
    """The environment that compiled templates use."""

    filters = FILTERS
    undefined = Undefined
    concat = "".join
    getattr = staticmethod(getattr)


environment = Environment()
