"""Differences between messages of two versions: keys, types, payloads and publications."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields

from protoflow.breaking import payloads
from protoflow.breaking.change import Change, change
from protoflow.breaking.contract import Contract, Event
from protoflow.contract.spec import Encoding, MessageSpec

#: Fields of a message that no rule mentions; changing them changes attributes of messages.
_ASPECTS = tuple(
    field.name
    for field in fields(MessageSpec)
    if field.name
    not in {"type", "message_class", "topic", "partition_key", "encoding", "aliases", "sensitive"}
)


def changes(old: Contract, new: Contract, handlers: Mapping[str, str]) -> Iterator[Change]:
    """Yields the differences between the messages that are published or consumed.

    Args:
        old: the old contract.
        new: the new contract.
        handlers: for each handler in both versions, its new name by its old name.
    """
    renamed = _renamed(old, new)
    for name, before in old.messages.items():
        after_name = renamed.get(name, name)
        after = new.messages.get(after_name)
        if after is not None:
            yield from _message(old, new, before, after)
    yield from _events(old, new, {**handlers, **renamed})


def _renamed(old: Contract, new: Contract) -> dict[str, str]:
    """Returns the full names of old messages that new ones list in `aliases`."""
    return {
        name: other
        for name, before in old.messages.items() if name not in new.messages
        for other, after in new.messages.items() if before.type in after.aliases
    }  # fmt: skip


def _full_name(spec: MessageSpec) -> str:
    return spec.message_class.DESCRIPTOR.full_name


def _message(
    old: Contract, new: Contract, before: MessageSpec, after: MessageSpec
) -> Iterator[Change]:
    name = _full_name(after)
    yield from _key(old, new, before, after)
    encodings = before.encoding or old.config.encoding, after.encoding or new.config.encoding
    if encodings[0] != encodings[1]:
        yield change("encoding.changed", name, *encodings, new.place(name, "encoding"))
    for aspect in _ASPECTS:
        values = getattr(before, aspect), getattr(after, aspect)
        if values[0] != values[1]:
            yield change("attributes.changed", name, *values, new.place(name, aspect))
    shown, hidden = _hidden(before) - _hidden(after), _hidden(after) - _hidden(before)
    for message, field in sorted(shown | hidden):
        place = new.place(message, field) or new.place(name)
        is_hidden = (message, field) in hidden
        values = ("shown", "hidden") if is_hidden else ("hidden", "shown")
        yield change("sensitive.changed", f"{message}.{field}", *values, place)
    is_json = Encoding.JSON in encodings
    for difference in payloads.differences(
        before.message_class.DESCRIPTOR, after.message_class.DESCRIPTOR
    ):
        kind = "payload.renamed" if difference.name_only else "payload.incompatible"
        if is_json or not difference.name_only:
            place = new.place(difference.message, difference.field) or new.place(name)
            yield change(kind, name, difference.old, difference.new, place)


def _hidden(spec: MessageSpec) -> set[tuple[str, str]]:
    return {(message, field) for message, fields in spec.sensitive.items() for field in fields}


def _key(old: Contract, new: Contract, before: MessageSpec, after: MessageSpec) -> Iterator[Change]:
    keys = before.partition_key, after.partition_key
    if keys[0] == keys[1]:
        return
    name = _full_name(after)
    ordered = old.is_ordered(_full_name(before)) and new.is_ordered(name)
    if keys[0] is None:
        kind = "key.added"
    elif not ordered:
        kind = "key.moved.unordered"
    else:
        kind = "key.moved" if keys[1] else "key.removed"
    yield change(kind, name, *keys, new.place(name, keys[1] or ""))


def _events(old: Contract, new: Contract, renamed: dict[str, str]) -> Iterator[Change]:
    """Yields publications that exist in one version only, or that moved."""
    for source, before in old.events.items():
        after = new.events.get(renamed.get(source, source))
        if after is not None and after.message == renamed.get(before.message, before.message):
            yield from _moved(new, before, after)
        elif not _is_published(new, before, renamed):
            yield _gone(old, new, before)
    known = {renamed.get(source, source): event for source, event in old.events.items()}
    for source, event in new.events.items():
        before_it = known.get(source)
        if before_it is None or renamed.get(before_it.message, before_it.message) != event.message:
            place = _place(new, event)
            yield change("publication.added", source, None, f"{event.type} to {event.topic}", place)


def _moved(new: Contract, before: Event, after: Event) -> Iterator[Change]:
    source = after.source
    if before.type != after.type:
        place = new.place(after.message, "type")
        yield change("type.renamed", after.message, before.type, after.type, place)
    if before.topic != after.topic:
        still = any(new.consumers(after.type, before.topic))
        kind = "publication.moved.consumed" if still else "publication.moved"
        yield change(kind, source, before.topic, after.topic, _place(new, after))


def _place(contract: Contract, event: Event) -> str:
    """Returns the place that defines a source's publication to a topic."""
    return contract.place(event.source, "topic" if event.source == event.message else "publish")


def _is_published(contract: Contract, event: Event, renamed: dict[str, str]) -> bool:
    """Whether another source publishes the same message to the same topic."""
    message = renamed.get(event.message, event.message)
    # A method always publishes; a producer only publishes if code calls it.
    return event.source == event.message and any(
        other.message == message and other.topic == event.topic
        for other in contract.events.values()
    )


def _gone(old: Contract, new: Contract, event: Event) -> Change:
    consumed = any(new.consumers(event.type, event.topic))
    kind = "publication.removed.consumed" if consumed else "publication.removed"
    place = new.place(event.source) or old.place(event.source)
    return change(kind, event.source, f"{event.type} to {event.topic}", None, place)
