"""Where a dead letter goes when it is replayed.

Anybody who may publish can write a dead letter, and what it says of its origin. So where the
service knows whose letters a dead-letter topic holds, only those get them back; and in no case
does a letter choose a queue by its name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection

from protoflow import wire
from protoflow.errors import TopologyError
from protoflow.message import Message
from protoflow.transport.kit.replay import replayed
from protoflow.transports.rabbitmq import codec
from protoflow.transports.rabbitmq.names import Names

_NAME = re.compile(r"[A-Za-z0-9._-]+")


class Targets:
    """Readdresses the letters of one dead-letter topic.

    Args:
        names: the names.
        sources: the topics and groups whose letters lie there; None is unknown.
        to_origin: replay to the original topic, and not to the group alone.
    """

    def __init__(
        self, names: Names, sources: Collection[tuple[str, str]] | None, *, to_origin: bool
    ) -> None:
        self._names = names
        self._sources = sources
        self._to_origin = to_origin

    def renewed(self, letter: Message) -> Message:
        """The message to publish. Raises TopologyError."""
        message = replayed(letter)
        if message is None:
            return self._returned(letter)
        topic, group = message.topic, letter.metadata.get(wire.PF_GROUP, "")
        self._check(letter, topic, group)
        if self._to_origin:
            return message
        address = self._names.to_group(topic, group)
        return dataclasses.replace(message, topic=address, mandatory=True)

    def _returned(self, letter: Message) -> Message:
        """A letter that the broker itself wrote, the message having come too often."""
        death = codec.last_death(letter)
        source = self._names.group_of(death.queue) if death is not None else None
        if death is None or source is None:
            raise TopologyError(
                f"dead letter {letter.id} names no original topic, so it cannot be replayed; "
                "publish it anew and purge it"
            )
        self._check(letter, *source)
        metadata = {  # what is published there is believed, and anybody may have written this
            name: text
            for name, text in letter.metadata.items()
            if not name.startswith(wire.PF_PREFIX)
        }
        topic, group = source
        return dataclasses.replace(
            letter,
            topic=topic if self._to_origin else self._names.to_group(topic, group),
            metadata=metadata,
            mandatory=not self._to_origin,
        )

    def _check(self, letter: Message, topic: str, group: str) -> None:
        plausible = _NAME.fullmatch(topic) and (self._to_origin or _NAME.fullmatch(group))
        known = self._sources is None or (topic, group) in self._sources
        if not plausible or not known:
            raise TopologyError(
                f"dead letter {letter.id} names topic {topic!r:.100} and group {group!r:.100}, "
                "which have no letters there, so it is not replayed; look at who wrote it, "
                "publish it anew and purge it"
            )
