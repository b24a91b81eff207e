"""Takes frames off received messages."""

from __future__ import annotations

from collections.abc import Mapping

from protoflow import wire
from protoflow.codecs.framing import HEADER, Frame, header_of, is_framed, read
from protoflow.codecs.payload import is_binary
from protoflow.errors import SchemaRegistryError
from protoflow.message import Message
from protoflow.schema_registry.registry import SchemaRegistry


class FrameReader:
    """Reads the frames of one subscription.

    A message that names its type needs no registry. Otherwise its frame names the type.

    Args:
        registry: knows the names of messages.
        types: CloudEvents types by the full name of the message.
    """

    def __init__(self, registry: SchemaRegistry, types: Mapping[str, str]) -> None:
        self._registry = registry
        self._types = types

    def opened(self, message: Message) -> Message | Frame:
        """Returns a message without its frame, with its type; without a frame, the message.

        Returns the frame if its message is not known yet; `SchemaRegistry.learn` asks for it.
        Raises DecodeError if the frame is broken.
        """
        payload = message.payload
        content_type = message.metadata.get(wire.CONTENT_TYPE)
        if payload is None or (content_type and not is_binary(content_type)):
            return message  # other formats may begin with the same bytes
        frame: Frame | None = None
        if (header := header_of(message.headers)) is not None:
            frame, _length = read(header)
        elif is_framed(payload):
            frame, length = read(payload)
            payload = payload[length:]
        if frame is None:
            return message
        metadata = {name: value for name, value in message.metadata.items() if name != HEADER}
        if wire.CE_TYPE not in metadata:
            name = self._registry.name_of(frame)
            if name is None:
                return frame
            metadata[wire.CE_TYPE] = self._types.get(name, name)
        metadata[wire.CONTENT_TYPE] = wire.PROTOBUF
        return Message(
            id=message.id, topic=message.topic, payload=payload, key=message.key,
            metadata=metadata, headers=message.headers,
        )  # fmt: skip

    async def learned(self, message: Message) -> Message:
        """Like `opened`, but asks the registry for an unknown type. If it does not answer, returns
        the message with its frame. Raises DecodeError."""
        found = self.opened(message)
        if isinstance(found, Message):
            return found
        try:
            await self._registry.learn(found)
        except SchemaRegistryError:
            return message
        return await self.learned(message)
