"""Adds the type and the content type that foreign messages of a source do not name."""

from __future__ import annotations

from dataclasses import replace

from protoflow import wire
from protoflow.codecs.payload import is_supported
from protoflow.contract.topic_source import TopicSource
from protoflow.message import Message
from protoflow.scheduling.router import Router


class SourceLabels:
    """The labels of one source. What a message says itself, and is understood, is kept.

    Args:
        source: has the labels.
        router: knows the types that the handlers take.
    """

    def __init__(self, source: TopicSource, router: Router) -> None:
        self._type = source.type
        self._content_type = source.content_type
        self._router = router
        named = [kind for kind in router.by_type if kind]
        self._only = named[0] if len(named) == 1 else ""

    def apply(self, message: Message) -> Message:
        """Returns a message, which is not in an envelope, with its labels."""
        metadata, added = message.metadata, dict[str, str]()
        if self._content_type and not is_supported(metadata.get(wire.CONTENT_TYPE, "")):
            added[wire.CONTENT_TYPE] = self._content_type
        kind = self._router.type_of(message)
        if kind not in self._router.by_type and (label := self._type or (not kind and self._only)):
            added[wire.CE_TYPE] = label  # so dead letters can be decoded, too
        return replace(message, metadata={**metadata, **added}) if added else message
