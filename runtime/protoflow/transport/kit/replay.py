"""Replaying dead letters: the parts that all stores share."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence

from protoflow import wire
from protoflow.error_codes import ARGUMENT, coded
from protoflow.errors import (
    DeadLetterNotFoundError,
    NotReplayableError,
    PublishError,
    PublishRefusedError,
    TransportError,
)
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.interface import SubscriptionSettings

#: A position has at most this many digits.
_DIGITS = 20
#: The characters of topics and groups.
_NAME = re.compile(r"[A-Za-z0-9._-]+")


class DeadLetterSources:
    """The subscriptions of this process by their dead-letter topics.

    Any publisher can write a dead letter with any origin. So if the subscriptions of a topic are
    known, dead letters of other origins are not replayed.
    """

    def __init__(self) -> None:
        self._known: dict[str, set[tuple[str, str]]] = {}

    def add(self, subscriptions: Iterable[SubscriptionSettings]) -> None:
        """Adds the dead-letter topics of subscriptions."""
        for settings in subscriptions:
            for topic in settings.dead_letter_topics:
                self._known.setdefault(topic, set()).add((settings.topic, settings.group))

    def has_topic(self, dead_letter_topic: str, topic: str) -> bool:
        """Whether a subscription consumes this topic."""
        known = self._known.get(dead_letter_topic)
        return known is None or any(topic == source for source, _ in known)

    def replayed(
        self, record: DeadLetterRecord, *, to_origin: bool, origin: tuple[str, str] | None = None
    ) -> tuple[Message, str]:
        """Returns the message that replays a dead letter, and the group that failed.

        The message is addressed to the original topic. Id, payload, key and headers are kept; hop
        state, which includes the attempts, is removed.

        Args:
            record: the dead letter.
            to_origin: the message goes to the original topic, so no group needs to be named.
            origin: topic and group from the broker, if it knows them better than the dead letter.

        Raises:
            NotReplayableError: the dead letter names no origin, or one whose dead letters are in
                another topic.
        """
        message = record.message
        named = message.metadata.get
        topic, group = origin or (named(wire.PF_ORIGINAL_TOPIC, ""), named(wire.PF_GROUP, ""))
        topic = record.destination or topic
        if not topic or not (group or to_origin):
            raise NotReplayableError(
                "it names no original topic and group; publish it again and purge it"
            )
        known = self._known.get(message.topic)
        # An operator may name any topic; a dead letter may only name valid ones.
        if known is not None and not record.destination and (topic, group) not in known:
            raise NotReplayableError(
                f"it names topic {topic!r:.100} and group {group!r:.100}, whose dead letters are "
                "in another topic; check who wrote it, publish it again and purge it"
            )
        again = {wire.PF_REPROCESS: "true", wire.PF_GROUP: group} if record.reprocess else {}
        return (
            Message(
                id=message.id,
                topic=topic,
                payload=message.payload,
                key=message.key,
                metadata={
                    name: value
                    for name, value in message.metadata.items()
                    if not name.startswith(wire.PF_PREFIX)
                }
                | again,
                headers=message.headers,
                deduplication_id=f"{message.id}:{group}:p{record.position}.{message.topic}",
            ),
            group,
        )


Address = Callable[[DeadLetterRecord], Awaitable[Message]]
Publish = Callable[
    [Sequence[DeadLetterRecord], Sequence[Message]], Awaitable[Sequence[PublishError | None]]
]
Submit = Callable[[Sequence[Message]], Awaitable[Sequence[PublishError | None]]]
SubmitToGroup = Callable[[Sequence[Message], str], Awaitable[Sequence[PublishError | None]]]
Remove = Callable[[Sequence[DeadLetterRecord]], Awaitable[None]]


def check_names(message: Message, group: str, *, to_origin: bool) -> None:
    """Raises NotReplayableError if the topic or the group of a dead letter cannot exist.

    A transport that makes a queue's name of both calls it, so that no dead letter selects another
    queue.
    """
    if not (_NAME.fullmatch(message.topic) and (to_origin or _NAME.fullmatch(group))):
        raise NotReplayableError(
            f"it names topic {message.topic!r:.100} and group {group!r:.100}, which cannot exist; "
            "publish it again and purge it"
        )


def publish_with(submit: Submit) -> Publish:
    """Returns the `publish` of `replay_in_order` for a publisher that needs no records."""

    async def publish(
        _: Sequence[DeadLetterRecord], messages: Sequence[Message]
    ) -> Sequence[PublishError | None]:
        return await submit(messages)

    return publish


async def replay_in_order(
    records: Sequence[DeadLetterRecord], address: Address, publish: Publish, remove: Remove
) -> Sequence[Exception | None]:
    """Implements `DeadLetterScan.replay` if publishing and removing are two steps.

    Only one message of each key is in flight at a time, so a failure holds back the later messages
    of its key.

    Args:
        records: the dead letters to replay.
        address: makes the message for a record; it raises NotReplayableError or TransportError.
        publish: publishes messages with different keys; it also gets their records.
        remove: removes records whose messages are confirmed.
    """
    results: list[Exception | None] = [None] * len(records)
    waiting: list[tuple[int, Message]] = []
    blocked: set[bytes | None] = set()

    def fail(index: int, error: Exception) -> None:
        results[index] = error
        if may_pass(error):
            blocked.add(records[index].message.key)
            blocked.discard(None)

    for index, record in enumerate(records):
        try:
            if record.message.key in blocked:
                raise left_behind()
            waiting.append((index, await address(record)))
        except (NotReplayableError, TransportError) as error:
            fail(index, error)
    while waiting:
        sent, waiting = _one_of_each_key(waiting)
        chosen = [records[index] for index, _ in sent]
        outcomes: Sequence[TransportError | None]
        outcomes = await publish(chosen, [message for _, message in sent])
        try:
            await remove(
                [each for each, failed in zip(chosen, outcomes, strict=True) if not failed]
            )
        except TransportError as error:  # they were replayed, but are still in the topic
            outcomes = [failed or error for failed in outcomes]
        for (index, _), failed in zip(sent, outcomes, strict=True):
            if failed is not None:
                fail(index, failed)
        for index, _ in waiting:
            if records[index].message.key in blocked:
                fail(index, left_behind())
        waiting = [each for each in waiting if results[each[0]] is None]
    return results


async def replay_to_groups(
    records: Sequence[DeadLetterRecord],
    sources: DeadLetterSources,
    check_group: Callable[[Message, str], Awaitable[None]],
    submit: SubmitToGroup,
    remove: Remove,
    *,
    to_origin: bool,
) -> Sequence[Exception | None]:
    """Implements `DeadLetterScan.replay` if a message can be published to one group of its topic.

    Args:
        records: the dead letters to replay.
        sources: the subscriptions with their dead-letter topics.
        check_group: raises NotReplayableError if the group does not exist.
        submit: publishes messages to the group, or to every group if it is empty.
        remove: removes records whose messages are confirmed.
        to_origin: every group of the original topic gets the messages.
    """
    groups: dict[int, str] = {}  # two groups may have dead-lettered the same id

    async def address(record: DeadLetterRecord) -> Message:
        message, group = sources.replayed(record, to_origin=to_origin)
        message.mandatory = True
        if not to_origin:
            await check_group(message, group)
            groups[id(message)] = group
        return message

    async def publish(
        _: Sequence[DeadLetterRecord], messages: Sequence[Message]
    ) -> Sequence[PublishError | None]:
        futures = [submit([each], groups.get(id(each), "")) for each in messages]
        return [(await future)[0] for future in futures]

    return await replay_in_order(records, address, publish, remove)


def no_group(topic: str, group: str) -> NotReplayableError:
    """Returns the error of a dead letter whose group does not exist."""
    return NotReplayableError(
        f"group {group!r:.100} of {topic!r:.100} does not exist; replay it to its original topic"
    )


def may_pass(error: Exception) -> bool:
    """Whether an error is temporary, so that later dead letters of the key must wait."""
    final = NotReplayableError | PublishRefusedError | DeadLetterNotFoundError
    return not isinstance(error, final)


def left_behind() -> PublishError:
    """Returns the error of a dead letter that waits for an earlier one of its key."""
    return PublishError("an earlier dead letter of its key was not replayed")


def number_of(position: str) -> int:
    """Returns the number of a position, 0 for the beginning. Raises ValueError."""
    if position and not (position.isascii() and position.isdecimal() and len(position) <= _DIGITS):
        raise ValueError(
            coded(f"after: {position!r:.100} is not the position of a dead letter", ARGUMENT)
        )
    return int(position or 0)


def _one_of_each_key(
    waiting: Sequence[tuple[int, Message]],
) -> tuple[list[tuple[int, Message]], list[tuple[int, Message]]]:
    """Returns the first message of each key and all without a key; and the other messages."""
    first: list[tuple[int, Message]] = []
    later: list[tuple[int, Message]] = []
    keys: set[bytes] = set()
    for index, message in waiting:
        key = message.key
        if key is None or key not in keys:
            first.append((index, message))
            if key is not None:
                keys.add(key)
        else:
            later.append((index, message))
    return first, later
