"""Finds dead letters that return to their origin, over all registered handlers.

The generator checks each file for such cycles. Cycles over several files, the config and raw
handlers are only found at start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from protoflow.contract.spec import UnhandledTypes

if TYPE_CHECKING:
    from protoflow.registrations.subscription_plan import HandlerPlan

#: The type of messages that no contract declares.
_OTHER = ""
#: A topic and the name of its transport.
_Place: TypeAlias = tuple[str, str]


def problems(handlers: Sequence[HandlerPlan]) -> list[str]:
    """Returns an error for each chain of handlers in which a failing message circulates."""
    return [
        "dead letters circulate for ever: "
        + ", ".join(
            f"{step.registration.name} sends those of {step.topic} to {step.dead_letter_topic}"
            for step in cycle
        )
        + "; choose another dead_letter.topic in one of them"
        for cycle in _cycles(handlers)
    ]


def _cycles(handlers: Sequence[HandlerPlan]) -> Iterator[list[HandlerPlan]]:
    """Yields each chain once, beginning with the handler that was registered first."""
    consumers: dict[_Place, list[HandlerPlan]] = {}
    for handler in handlers:
        consumers.setdefault((handler.topic, handler.transport), []).append(handler)
    reported = set[frozenset[int]]()
    for first in handlers:
        if (first.dead_letter_topic, first.transport) not in consumers:
            continue
        for kind in first.registration.types or (_OTHER, *_types(handlers)):
            for cycle in _back_to(first, kind, consumers):
                members = frozenset(map(id, cycle))
                if members not in reported:
                    reported.add(members)
                    yield cycle


def _back_to(
    first: HandlerPlan, kind: str, consumers: dict[_Place, list[HandlerPlan]]
) -> Iterator[list[HandlerPlan]]:
    """Yields the chains by which a dead letter of a type returns to a handler."""
    chains = [[first]]
    seen = {id(first)}
    while chains:
        chain = chains.pop()
        last = chain[-1]
        for handler in consumers.get((last.dead_letter_topic, last.transport), ()):
            if not _takes(handler, kind):
                continue
            if handler is first:
                yield chain
            elif id(handler) not in seen:
                seen.add(id(handler))
                chains.append([*chain, handler])


def _takes(handler: HandlerPlan, kind: str) -> bool:
    """Whether a handler can dead-letter a message of a type."""
    types = handler.registration.types
    return not types or kind in types or handler.policy.unhandled is UnhandledTypes.DEAD_LETTER


def _types(handlers: Sequence[HandlerPlan]) -> list[str]:
    return sorted({kind for handler in handlers for kind in handler.registration.types})
