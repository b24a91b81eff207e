"""Differences between the subscriptions of two versions: handlers, topics, groups, types."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from protoflow.breaking.change import Change, change
from protoflow.breaking.contract import Contract
from protoflow.breaking.policies import PolicyComparison
from protoflow.contract.spec import Effects, Start, UnhandledTypes
from protoflow.counted import counted
from protoflow.registrations.subscription_plan import HandlerPlan

Pair = tuple[HandlerPlan, HandlerPlan]


def changes(
    old: Contract, new: Contract, pairs: Sequence[Pair], retention: float
) -> Iterator[Change]:
    """Yields the differences between the subscriptions.

    Args:
        old: the old contract.
        new: the new contract.
        pairs: the handlers that exist in both versions.
        retention: seconds for which the broker keeps a message.
    """
    for before, after in pairs:
        yield from _moves(old, new, before, after)
        yield from PolicyComparison(old, new, before, after, retention).changes()
    kept = {before.registration.name for before, _ in pairs}
    known = {after.registration.name for _, after in pairs}
    for name, handler in old.handlers.items():
        if name not in kept and (handler.topic, handler.group) not in new.subscriptions:
            where = f"{handler.topic} in {handler.group}"
            yield change("handler.removed", name, where, None, old.place(name))
    for name, handler in new.handlers.items():
        if name not in known and (handler.topic, handler.group) not in old.subscriptions:
            late = handler.policy.start is Start.LATEST and handler.topic not in old.topics
            kind = "handler.added.latest" if late else "handler.added"
            where = f"{handler.topic} in {handler.group}"
            yield change(kind, name, None, where, new.place(name))
    yield from _types(old, new)


def pairs_of(old: Contract, new: Contract) -> list[Pair]:
    """Returns pairs of handlers that correspond in both versions, even if their names differ."""
    pairs: list[Pair] = []
    before = dict(old.handlers)
    after = dict(new.handlers)
    for same in (_by_name, _by_subscription, _by_method):
        left = {same(handler): name for name, handler in after.items()}
        for name, handler in list(before.items()):
            match = left.pop(same(handler), None)
            if match is not None:
                pairs.append((before.pop(name), after.pop(match)))
    return pairs


def _by_name(handler: HandlerPlan) -> object:
    return handler.registration.name


def _by_subscription(handler: HandlerPlan) -> object:
    return handler.topic, handler.group, handler.registration.types[:1]


def _by_method(handler: HandlerPlan) -> object:
    return handler.registration.name.rpartition(".")[2], handler.registration.types[:1]


def _moves(
    old: Contract, new: Contract, before: HandlerPlan, after: HandlerPlan
) -> Iterator[Change]:
    """Yields the differences in name, topic, group and shape."""
    name = after.registration.name
    found: Callable[[str], str] = lambda aspect: new.place(name, aspect)  # noqa: E731  a shorthand
    if before.registration.name != name:
        yield change("handler.renamed", name, before.registration.name, name, found(""))
    topics, groups = (before.topic, after.topic), (before.group, after.group)
    if topics[0] != topics[1]:
        yield change("topic.moved", name, *topics, found("topic"))
    if groups[0] != groups[1]:
        yield change("group.moved", name, *groups, found("group"))
    moved = topics[0] != topics[1] or groups[0] != groups[1]
    templates = before.policy.dead_letter_topic, after.policy.dead_letter_topic
    dead = before.dead_letter_topic, after.dead_letter_topic
    if dead[0] != dead[1] and (not moved or templates[0] != templates[1]):
        yield change("dead_letter.moved", name, *dead, found("dead_letter.topic"))
    broadcast = before.registration.broadcast, after.registration.broadcast
    if broadcast[0] != broadcast[1]:
        kind = "broadcast.on" if broadcast[1] else "broadcast.off"
        yield change(kind, name, *broadcast, found("broadcast"))
    effects = before.registration.effects, after.registration.effects
    if effects[0] is not effects[1]:
        kind = "effects.exactly_once" if effects[1] is Effects.EXACTLY_ONCE else "effects.weaker"
        yield change(kind, name, *effects, found("effects"))
    batches = _batch(before), _batch(after)
    if batches[0] != batches[1]:
        yield change("batch.changed", name, *batches, found("batch"))
    streams = before.registration.streams, after.registration.streams
    if streams[0] != streams[1]:
        yield change("streams.changed", name, *streams, found(""))


def _batch(handler: HandlerPlan) -> str:
    registration = handler.registration
    if not registration.batched:
        return "single messages"
    policy = registration.batch
    parts = [
        counted(policy.max_messages, "message") if policy.max_messages else "",
        f"{policy.max_wait:g} s" if policy.max_wait else "",
    ]
    return " ".join(part for part in ("batches", *parts) if part)


def _types(old: Contract, new: Contract) -> Iterator[Change]:
    """Yields types that a subscription handles in one version only."""
    for key in old.subscriptions.keys() & new.subscriptions.keys():
        before, after = _owners(old.subscriptions[key]), _owners(new.subscriptions[key])
        topic, group = key
        for type in sorted(before.keys() - after.keys()):
            handler = before[type].registration.name
            place = new.place(handler) or old.place(handler)
            skips = new.subscriptions[key][0].policy.unhandled is UnhandledTypes.SKIP
            kind = "type.removed" if skips else "type.removed.dead_lettered"
            yield change(kind, f"{topic} in {group}", type, None, place)
        for type in sorted(after.keys() - before.keys()):
            there = (type, topic) in old.published or (type, topic) not in new.published
            kind = "type.added.known" if there else "type.added"
            place = new.place(after[type].registration.name)
            yield change(kind, f"{topic} in {group}", None, type, place)


def _owners(handlers: tuple[HandlerPlan, ...]) -> dict[str, HandlerPlan]:
    return {type: handler for handler in handlers for type in handler.registration.types}
