"""Finds dead letters and outputs that return to their origin, within one file.

Loops over several files are found when the service starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from protoflow.error_codes import DEAD_LETTER_TOPIC, LOOP, NAME_RULE

from protoc_gen_protoflow import value_rules
from protoc_gen_protoflow.contract import MethodContract
from protoc_gen_protoflow.problems import Problems
from protoc_gen_protoflow.request import Location


class _Route(NamedTuple):
    """The destination of a method's dead letters, and the option that sets it."""

    method: MethodContract
    topic: str
    place: Location
    is_default: bool


def check(methods: Sequence[MethodContract], problems: Problems) -> None:
    """Reports dead letters and outputs that their own producers would consume again."""
    routes = [_route(method) for method in methods if method.topic]
    for route in routes:
        _check_length(route, problems)
        _check_outputs(route, problems)
    for cycle in _cycles(routes):
        _report(cycle, problems)


def _route(method: MethodContract) -> _Route:
    leaf = method.delivery.get("dead_letter.topic")
    template = str(leaf.value) if leaf else value_rules.DEFAULT_DEAD_LETTER
    topic = template.replace("{topic}", method.topic).replace("{group}", method.group)
    return _Route(method, topic, leaf.place if leaf else method.place, leaf is None)


def _check_length(route: _Route, problems: Problems) -> None:
    what = "dead_letter.topic"
    fix = ""
    if route.is_default:
        what = f"the dead-letter topic (default {value_rules.DEFAULT_DEAD_LETTER})"
        fix = ": shorten topic or consumer_group, or set dead_letter.topic"
    for text in value_rules.length_problems(f"{what} with its variables filled in", route.topic):
        problems.add(route.place, text + fix, NAME_RULE)


def _check_outputs(route: _Route, problems: Problems) -> None:
    method = route.method
    if method.output is None or not method.output_topic:
        return
    if route.topic == method.output_topic:
        problems.add(
            route.place,
            f"dead_letter.topic is {route.topic}, to which the method publishes its outputs, "
            "so their consumers would also get its dead letters; choose another topic",
            DEAD_LETTER_TOPIC,
        )
    if method.output_topic == method.topic and _types(method) & {method.output.type}:
        problems.add(
            method.place,
            f"publishes {method.output.type} to {method.topic}, from which it consumes it, so "
            "that each message causes another one without end; publish to another topic or, if "
            "this is intended, return google.protobuf.Empty and publish through the context",
            LOOP,
        )


def _cycles(routes: Sequence[_Route]) -> Iterator[list[_Route]]:
    """Returns each chain of methods in which a failing message returns, once."""
    reported = set[frozenset[str]]()
    consumers: dict[str, list[_Route]] = {}
    for route in routes:
        consumers.setdefault(route.method.topic, []).append(route)
    for first in routes:
        for kind in sorted(_types(first.method)):
            # A topic delivers a type to its handlers; their dead letters continue the chain.
            paths = [[first]]
            seen = {first.method.place.name}
            while paths:
                path = paths.pop()
                for route in consumers.get(path[-1].topic, ()):
                    if not _takes(route.method, kind):
                        continue
                    if route is first:
                        members = frozenset(step.method.place.name for step in path)
                        if members not in reported:
                            reported.add(members)
                            yield path
                    elif route.method.place.name not in seen:
                        seen.add(route.method.place.name)
                        paths.append([*path, route])


def _takes(method: MethodContract, kind: str) -> bool:
    unhandled = method.delivery.get("unhandled")
    return kind in _types(method) or bool(
        unhandled and str(unhandled.value).endswith(".DEAD_LETTER")
    )


def _types(method: MethodContract) -> set[str]:
    return {method.input.type, *method.input.aliases}


def _report(cycle: Sequence[_Route], problems: Problems) -> None:
    first = cycle[0]
    if len(cycle) == 1:
        problems.add(
            first.place,
            f"dead_letter.topic is the consumed topic {first.topic}: dead letters would be "
            "consumed again; choose another topic",
            DEAD_LETTER_TOPIC,
        )
        return
    problems.add(
        first.place,
        f"dead letters circulate for ever: {_shown(cycle)}; choose another dead_letter.topic in "
        "one of them",
        DEAD_LETTER_TOPIC,
    )


def _shown(cycle: Iterable[_Route]) -> str:
    return ", ".join(
        f"{step.method.place.name} sends those of {step.method.topic} to {step.topic}"
        for step in cycle
    )
