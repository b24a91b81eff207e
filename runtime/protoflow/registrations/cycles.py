"""Dead letters that come back to where they came from, over everything that is registered.

The generator looks for these in each file; what comes together over files, config and raw handlers
is seen at start only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from protoflow.contract.spec import UnhandledTypes

if TYPE_CHECKING:
    from protoflow.registrations.subscription_plan import HandlerPlan

#: Stands for a type that no contract names.
_OTHER = ""


def problems(handlers: Sequence[HandlerPlan]) -> list[str]:
    """The chains of handlers in which a message that all of them fail goes round for ever."""
    return [
        "dead letters go round for ever: "
        + ", ".join(
            f"{step.registration.name} sends those of {step.topic} to {step.dead_letter_topic}"
            for step in cycle
        )
        + "; choose another dead_letter.topic in one of them"
        for cycle in _cycles(handlers)
    ]


def _cycles(handlers: Sequence[HandlerPlan]) -> Iterator[list[HandlerPlan]]:
    """Each chain once, from the handler that was registered first on."""
    consumers: dict[str, list[HandlerPlan]] = {}
    for handler in handlers:
        consumers.setdefault(handler.topic, []).append(handler)
    told = set[frozenset[int]]()
    for first in handlers:
        if first.dead_letter_topic not in consumers:
            continue
        for kind in first.registration.types or (_OTHER, *_types(handlers)):
            for cycle in _back_to(first, kind, consumers):
                members = frozenset(map(id, cycle))
                if members not in told:
                    told.add(members)
                    yield cycle


def _back_to(
    first: HandlerPlan, kind: str, consumers: dict[str, list[HandlerPlan]]
) -> Iterator[list[HandlerPlan]]:
    """The chains that a dead letter of a type takes from a handler back to it."""
    chains = [[first]]
    seen = {id(first)}
    while chains:
        chain = chains.pop()
        for handler in consumers.get(chain[-1].dead_letter_topic, ()):
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
