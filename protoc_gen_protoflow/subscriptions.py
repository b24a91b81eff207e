"""Rules for all methods of a file that consume one topic in one group, in any service.

Methods of other files are checked when the service starts, in `register`, because the module of a
file must not depend on other files that are generated with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from protoflow.error_codes import NO_KEY, SHARED_SUBSCRIPTION
from protoflow.v1.policy_fields import SHARED_FIELDS

from protoc_gen_protoflow import loops
from protoc_gen_protoflow.contract import Leaf, MethodContract, ServiceContract
from protoc_gen_protoflow.messages import MessageReader
from protoc_gen_protoflow.problems import Problems


def shared(
    services: Sequence[ServiceContract], messages: MessageReader, problems: Problems
) -> list[ServiceContract]:
    """Returns the services, with the settings of their subscriptions; reports contradictions.

    Args:
        services: the services of a file.
        messages: reads nested messages.
        problems: collects the errors.
    """
    subscriptions: dict[tuple[str, str], list[MethodContract]] = {}
    for service in services:
        for method in service.methods:
            if method.topic:
                subscriptions.setdefault((method.topic, method.group), []).append(method)
    settled: dict[str, MethodContract] = {}
    for methods in subscriptions.values():
        found = _settled(methods, problems) if len(methods) > 1 else methods
        _check_order(found, messages, problems)
        settled.update((method.place.name, method) for method in found)
    loops.check([*settled.values()], problems)
    return [
        service._replace(
            methods=tuple(settled.get(method.place.name, method) for method in service.methods)
        )
        for service in services
    ]


def _settled(methods: Sequence[MethodContract], problems: Problems) -> list[MethodContract]:
    """Returns the methods of a subscription, each with the settings of the subscription."""
    _check_types(methods, problems)
    leaves: dict[str, Leaf] = {}
    for name in SHARED_FIELDS:
        if leaf := _shared_leaf(name, methods, problems):
            leaves[name] = leaf
    broadcast = _shared_broadcast(methods, problems)
    return [
        method._replace(delivery={**method.delivery, **leaves}, broadcast=broadcast)
        for method in methods
    ]


def _shared_leaf(name: str, methods: Sequence[MethodContract], problems: Problems) -> Leaf | None:
    """Returns the value for all methods, which the most specific level sets."""
    said = [(leaf, method) for method in methods if (leaf := method.delivery.get(name))]
    if not said:
        return None
    level = max(leaf.level for leaf, _ in said)
    (first, owner), *others = [pair for pair in said if pair[0].level == level]
    for leaf, _ in others:
        if leaf.value != first.value:
            problems.add(
                leaf.place,
                f"{name} is {_shown(leaf)} here and {_shown(first)} in {owner.place.name}, "
                f"although both consume {owner.topic} in the group {owner.group}; set the same "
                "value, or set one only",
                SHARED_SUBSCRIPTION,
            )
    return first


def _shared_broadcast(methods: Sequence[MethodContract], problems: Problems) -> bool:
    said = [method for method in methods if method.broadcast is not None]
    for method in said[1:]:
        if method.broadcast != said[0].broadcast:
            problems.add(
                method.place,
                f"broadcast differs from {said[0].place.name}, although both consume "
                f"{method.topic} in the group {method.group}; set the same value, or set one only",
                SHARED_SUBSCRIPTION,
            )
    return bool(said and said[0].broadcast)


def _check_types(methods: Sequence[MethodContract], problems: Problems) -> None:
    owners: dict[str, MethodContract] = {}
    for method in methods:
        for name in (method.input.type, *method.input.aliases):
            owner = owners.setdefault(name, method)
            if owner is not method:
                problems.add(
                    method.place,
                    f"consumes {name} from {method.topic} in the group {method.group}, as "
                    f"{owner.place.name} does; change the topic or the group of one of them",
                    SHARED_SUBSCRIPTION,
                )


def _check_order(
    methods: Sequence[MethodContract], messages: MessageReader, problems: Problems
) -> None:
    ordering = methods[0].delivery.get("ordering")
    if ordering is None or not str(ordering.value).endswith(".PER_KEY"):
        return
    if any(method.input.partition_key for method in methods):
        return
    inputs = {method.input.declared.full_name: method.input.declared for method in methods}
    marks = [
        f"{name}.{mark}" for name in sorted(inputs) for mark in messages.marks_inside(inputs[name])
    ]
    aside = f" ({' and '.join(marks)} is marked, but in a nested message)" if marks else ""
    problems.add(
        methods[0].place,
        f"ordering is per key, but {' and '.join(sorted(inputs))} has no key{aside}; mark a field "
        "of the message itself with (protoflow.v1.field).partition_key, or choose another ordering",
        NO_KEY,
    )


def _shown(leaf: Leaf) -> str:
    return leaf.text.rpartition(".")[2] if leaf.text.startswith("_pf.") else leaf.text
