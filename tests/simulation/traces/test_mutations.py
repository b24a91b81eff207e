"""Traces altered as a broker that breaks its rules would make them are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from protoflow.testing.broker_traces import RULES, Event, check
from protoflow.testing.simulation.profiles import PROFILES

from tests.simulation.traces.recorded import trace

ORDERED, FREE = "orders/billing", "shipped/mail"
Mutation = Callable[[list[Event], str], tuple[list[Event], str]]


def delivered(events: list[Event], group: str) -> list[Event]:
    """The deliveries whose message was handled by this one alone, by a process that lived on."""
    found = []
    for event in events:
        if event.kind != "deliver" or event.group != group:
            continue
        same = [
            each for each in events
            if each.message == event.message and each.group in ("", event.group)
        ]  # fmt: skip
        if [each.kind for each in same].count("deliver") == 1 and same[-1].detail == "DONE":
            found.append(event)
    return found


def after(events: list[Event], event: Event, kind: str) -> Event:
    """What follows an event for the same delivery."""
    return next(
        each for each in events[events.index(event) :]
        if (each.kind, each.message, each.delivery) == (kind, event.message, event.delivery)
    )  # fmt: skip


def inserted(events: list[Event], behind: Event, new: Event) -> list[Event]:
    at = events.index(behind) + 1
    return [*events[:at], replace(new, time=behind.time), *events[at:]]


def comes_again(events: list[Event], group: str) -> tuple[list[Event], str]:
    """It was settled, and is delivered once more."""
    event = delivered(events, group)[3]
    again = replace(event, delivery=9999)
    return inserted(events, after(events, event, "settled"), again), event.message


def goes_to_two(events: list[Event], group: str) -> tuple[list[Event], str]:
    """It is delivered to another process, too, and both settle it."""
    event = delivered(events, group)[3]
    thief = replace(event, member="thief", delivery=9999)
    return inserted(events, event, thief), event.message


def comes_before_it_is_published(events: list[Event], group: str) -> tuple[list[Event], str]:
    event = delivered(events, group)[3]
    kept = [
        each for each in events
        if each.kind not in ("publish", "published") or each.message != event.message
    ]  # fmt: skip
    moved = [each for each in events if each not in kept]
    at = kept.index(event) + 1
    return [*kept[:at], *moved, *kept[at:]], event.message


def is_lost(events: list[Event], group: str) -> tuple[list[Event], str]:
    """It is stored, and never delivered."""
    event = delivered(events, group)[3]
    gone = [each for each in events if each.message == event.message and each.group == event.group]
    return [each for each in events if each not in gone], event.message


def is_forgotten_by_its_holder(events: list[Event], group: str) -> tuple[list[Event], str]:
    """It is delivered, and never settled."""
    event = delivered(events, group)[3]
    gone = (after(events, event, "settle"), after(events, event, "settled"))
    return [each for each in events if each not in gone], event.message


def has_another_attempt(events: list[Event], group: str) -> tuple[list[Event], str]:
    event = delivered(events, group)[3]
    changed = replace(event, attempt=event.attempt + 1)
    return [changed if each is event else each for each in events], event.message


def moves(events: list[Event], group: str) -> tuple[list[Event], str]:
    """It is given back, and comes again from another position."""
    event = delivered(events, group)[3]
    settle, settled = after(events, event, "settle"), after(events, event, "settled")
    events = inserted(events, settled, replace(event, delivery=9999, place="7777"))
    given_back = replace(settle, detail="RELEASE")
    return [given_back if each is settle else each for each in events], event.message


def is_overtaken(events: list[Event], group: str) -> tuple[list[Event], str]:
    """The next message of its key comes before it."""
    for first in delivered(events, group):
        later = [each for each in delivered(events, group) if each.key == first.key]
        second = next((each for each in later if each.time > first.time), None)
        if second is None:
            continue
        gone = [
            each for each in events
            if each.message == first.message and each.group == first.group
        ]  # fmt: skip
        kept = [each for each in events if each not in gone]
        at = kept.index(after(events, second, "settled")) + 1
        return [*kept[:at], *gone, *kept[at:]], second.message
    raise AssertionError("no two messages of one key")


MUTATIONS: dict[Mutation, tuple[str, str]] = {
    comes_again: (FREE, "delivered to mail.* but it is settled"),
    goes_to_two: (
        FREE,
        "delivered to thief, but it is held by mail|answered DONE, but it is .*lost by mail",
    ),
    comes_before_it_is_published: (FREE, "delivered to .* but it is settled, or never published"),
    is_lost: (FREE, "the trace ends, and it is held by nobody"),
    is_forgotten_by_its_holder: (FREE, "the trace ends, and it is held by"),
    moves: (FREE, "delivered to .* but it is held by nobody"),
    has_another_attempt: (FREE, "delivered to .* but it is (held by nobody|not confirmed)"),
    is_overtaken: (ORDERED, "of the same key is before it, not settled and held by nobody"),
}


CASES = [
    pytest.param(transport, mutation, id=f"{mutation.__name__}-{transport}")
    for mutation in MUTATIONS
    for transport in PROFILES
    if mutation is not moves or RULES[transport].positions  # else they are numbers of deliveries
]


@pytest.mark.parametrize(("transport", "mutation"), CASES)
def test_an_altered_trace_is_refused(transport: str, mutation: Mutation) -> None:
    group, text = MUTATIONS[mutation]
    seed = 1 if mutation is is_overtaken else 0  # in seed 0 few messages are handled by one alone
    altered, message = mutation([*trace(transport, seed)], group)
    found = [each for each in check(altered, transport).found if each.message == message]
    assert len(found) == 1
    assert found[0].group == group
    assert f"message {message}" in str(found[0])
    assert f"step {found[0].step}: " in str(found[0])
    assert re.search(text, found[0].text), found[0]
