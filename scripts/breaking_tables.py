"""The tables of `protoflow breaking`, made of its rules; see scripts/docs.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from protoflow.breaking.rule import Consequence
from protoflow.breaking.rules import RULES
from protoflow.breaking.verdict import MEANINGS, Rollout

#: As their schemes without encryption.
_ENCRYPTED = ("amqps", "nats+tls", "jetstream+tls")

Table = Callable[[Iterable[str], Iterable[Iterable[str]]], str]


def breaking_tables(table: Table) -> dict[str, Callable[[], str]]:
    """The tables by name; `table` makes one of its heading and its rows."""
    verdicts = [[verdict.value, text] for verdict, text in MEANINGS.items()]
    rollouts = [[one.value, " ".join(one.steps)] for one in Rollout]
    return {
        "verdicts": lambda: table(["verdict", "meaning"], verdicts),
        "rollouts": lambda: table(["rollout", "steps"], rollouts),
        "changes": lambda: table(
            ["change", "meaning", "verdict", "what happens", "rollout"], _changes()
        ),
    }


def _changes() -> list[list[str]]:
    """Every kind of change: what it does on any transport, and on those where it differs."""
    rows = []
    for name, rule in RULES.items():
        rows.append([f"`{name}`", rule.title, *_cells(rule.usual)])
        others: dict[Consequence, list[str]] = {}
        for scheme, consequence in rule.on.items():
            if scheme not in _ENCRYPTED:
                others.setdefault(consequence, []).append(scheme)
        rows += [
            ["", f"on {', '.join(schemes)}", *_cells(consequence)]
            for consequence, schemes in others.items()
        ]
    return rows


def _cells(consequence: Consequence) -> list[str]:
    return [consequence.verdict.value, consequence.effect, consequence.rollout.value]
