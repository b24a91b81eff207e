"""The options that select dead letters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from protoflow.cli.values import moment_of
from protoflow.dead_letters import DeadLetterFilter

F = TypeVar("F", bound=Callable[..., Any])

_NAMES = ("handler", "topics", "group", "error", "message_type", "key", "since", "until")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The selection from the options.

    Attributes:
        topics: dead-letter topics; if empty, those of the contract.
        handler: only dead letters of this handler.
        group: only dead letters of this group.
        filter: the conditions; None if there are none.
    """

    topics: tuple[str, ...]
    handler: str | None
    group: str | None
    filter: DeadLetterFilter | None

    @property
    def is_filter(self) -> bool:
        """Returns whether the selection excludes some dead letters."""
        return self.filter is not None


def filters(command: F) -> F:
    """Adds the options, and passes a `selection` to the command."""

    @functools.wraps(command)
    def called(*arguments: Any, **options: Any) -> Any:
        given = {name: options.pop(name) for name in _NAMES}
        return command(*arguments, selection=_selection(given), **options)

    made: Any = called
    for option in (
        click.option(
            "--until", type=moment_of, metavar="TIME", help="Dead-lettered before this time."
        ),
        click.option(
            "--since",
            type=moment_of,
            metavar="TIME",
            help="Since 2026-11-27T05:00Z, or 2h ago: 2h.",
        ),
        click.option("--key", help="With this key."),
        click.option("--type", "message_type", help="With this CloudEvents type."),
        click.option("--error", help="With this error type, such as ValueError."),
        click.option("--group", help="Of this group."),
        click.option("--handler", help="Of this handler, such as shop.v1.Orders.BillOrder."),
        click.option("--topic", "topics", multiple=True, help="Dead-letter topic; repeatable."),
    ):
        made = option(made)
    found: F = made
    return found


def _selection(given: dict[str, Any]) -> Selection:
    conditions = {
        "handler": given["handler"],
        "group": given["group"],
        "error_type": given["error"],
        "message_type": given["message_type"],
        "key": given["key"],
        "since": given["since"],
        "until": given["until"],
    }
    set_ones = {name: value for name, value in conditions.items() if value is not None}
    return Selection(
        topics=given["topics"],
        handler=given["handler"],
        group=given["group"],
        filter=DeadLetterFilter(**set_ones) if set_ones else None,
    )
