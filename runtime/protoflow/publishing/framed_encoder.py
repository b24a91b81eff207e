"""Encodes outputs with the frames of a schema registry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from protoflow.clock import Clock
from protoflow.codecs.framing import HEADER
from protoflow.config.settings import Config
from protoflow.context import Context
from protoflow.contract.spec import Encoding, PublicationSpec
from protoflow.message import Message
from protoflow.output import AnyOutput
from protoflow.publishing.encoder import Encoder
from protoflow.schema_registry.options import IdPlace
from protoflow.schema_registry.registry import Framing, SchemaRegistry
from protoflow.unprepared import Unprepared

#: The number of publications and topics whose frames are bound; topics can come from data.
_REMEMBERED: Final = 10_000


class FramedEncoder(Encoder):
    """Encodes outputs; each publication is bound to its frame once.

    Args:
        config: the settings.
        clock: time and randomness.

    Attributes:
        registry: registers schemas, or looks them up.

    Raises:
        ConfigError: with every mistake in the options of the registry.
    """

    def __init__(self, config: Config, clock: Clock) -> None:
        super().__init__(config, clock.now)
        self.registry = SchemaRegistry(config, clock.random)
        self._encoding = config.encoding
        self._timeout = config.connect_timeout
        # Keyed by identity, so each value holds its publication.
        self._frames: dict[tuple[int, str | None], tuple[PublicationSpec, Framing | None]] = {}

    def __call__(
        self, publication: PublicationSpec, output: AnyOutput, context: Context | None = None
    ) -> Message:
        """Returns the message to publish.

        Raises:
            Unprepared: the schema is not registered or looked up yet.
        """
        found = self._frames.get((id(publication), output.topic))
        framing = (found or self._find(publication, output.topic))[1]
        message = super().__call__(publication, output, context)
        if framing is not None and message.payload is not None:
            if framing.place is IdPlace.PAYLOAD:
                message.payload = framing.data + message.payload
            else:
                message.headers = ((HEADER, framing.data),)
        return message

    async def prepare(self, publications: Iterable[PublicationSpec]) -> None:
        """Registers or looks up the schemas of publications; waits while the registry cannot be
        reached.

        Raises:
            SchemaRegistryError: with every problem.
        """
        outputs = ((self.topic_of(one), one) for one in publications)
        wanted = dict.fromkeys(
            (topic, one.message.message_class)
            for topic, one in outputs
            if self._is_framed(one, topic)
        )
        await self.registry.prepare_all(wanted, self._timeout)

    def _is_framed(self, publication: PublicationSpec, topic: str) -> bool:
        """Whether messages of a publication have frames in a topic; JSON has none."""
        encoding = publication.message.encoding or self._encoding
        return encoding is Encoding.PROTOBUF and self.registry.of_topic(topic).enabled

    def _find(
        self, publication: PublicationSpec, given: str | None
    ) -> tuple[PublicationSpec, Framing | None]:
        topic = self.topic_of(publication) if given is None else self.physical(given)
        framing = None
        if self._is_framed(publication, topic):
            message_class = publication.message.message_class
            framing = self.registry.framing(topic, message_class)
            if framing is None:
                raise _unprepared(self.registry, topic, publication)
        if len(self._frames) >= _REMEMBERED:
            self._frames.clear()
        found = self._frames[id(publication), given] = (publication, framing)
        return found


def _unprepared(registry: SchemaRegistry, topic: str, publication: PublicationSpec) -> Unprepared:
    async def prepare() -> None:
        await registry.prepare(topic, publication.message.message_class)

    return Unprepared(prepare)
