"""Outputs become messages: the contract of a publication is bound once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from protoflow import wire
from protoflow.codecs.cloudevents import wrap
from protoflow.codecs.payload import CONTENT_TYPES, encode
from protoflow.codecs.profiles import profile_metadata
from protoflow.config.settings import Config
from protoflow.context import Context
from protoflow.contract.names import NameResolver
from protoflow.contract.spec import Encoding, MessageSpec, PublicationSpec
from protoflow.contract.validation import ProtoValidator, check_of
from protoflow.error_codes import ARGUMENT, INVALID_MESSAGE, RESOLVED_CONTRACT, coded
from protoflow.errors import (
    ConfigError,
    InvalidMessageError,
    ProtoflowError,
    PublishRefusedError,
)
from protoflow.ids import derived_id, new_id
from protoflow.message import Message
from protoflow.outcomes import Unprocessable
from protoflow.output import AnyOutput
from protoflow.wire import Profile


class Encoder:
    """Encodes outputs. A service has one encoder, so each publication is bound only once."""

    def __init__(self, config: Config, now: Callable[[], float]) -> None:
        self._config = config
        self._now = now
        # Keyed by identity, because specs live as long as their module.
        self._bound: dict[int, _Bound] = {}
        self._millisecond = -1
        self._time = ""
        self._mandatory = config.require_subscriber
        self._structured = config.structured
        #: Headers that the runtime writes on each output. If a handler copies its input's metadata,
        #: the input's values are wrong for the output: the cause of its cause, or a span that has
        #: ended.
        self._own: tuple[str, ...] = (wire.CAUSATION_ID, *wire.TRACE_CONTEXT)
        if config.profile is Profile.WATERMILL:
            self._own += (wire.WATERMILL_NAME,)
        #: Adds the metadata of the profile; None if there is none.
        self.apply_profile = profile_metadata(config.profile, config.type_names)
        #: Checks all messages, instead of the rules of their contracts.
        self.validator: ProtoValidator | None = None

    def __call__(
        self, publication: PublicationSpec, output: AnyOutput, context: Context | None = None
    ) -> Message:
        """Returns the message to publish.

        Raises:
            ValueError: the protobuf message cannot be encoded, or is of another type.
            ConfigError: the topic has variables without values.
            InvalidMessageError: the message violates a rule; in a handler this is Unprocessable. Or
                the id, the key or the metadata cannot be sent; in a handler this is
                PublishRefusedError.
        """
        bound = self._bound.get(id(publication)) or self._bind(publication)
        message = output.message
        if not isinstance(message, bound.message_class):
            expected = f"{bound.metadata[wire.CE_TYPE]} is expected"
            raise TypeError(coded(f"{expected}, not {type(message).__name__}", ARGUMENT))
        if bound.check is not None and (problem := bound.check(message)) is not None:
            raise _invalid(problem, context)
        metadata = bound.metadata.copy()
        now = self._now()
        if int(now * 1000) != self._millisecond:
            self._tick(now)
        metadata[wire.CE_TIME] = self._time
        key = output.key
        if key is None and bound.key is not None:
            key = bound.key(message)
        if key is not None:
            try:
                key = _key(key)
            except UnicodeEncodeError:
                raise _refused("key: a lone surrogate cannot be sent; remove it", context) from None
        if bound.subject is not None and (subject := bound.subject(message)):
            metadata[wire.CE_SUBJECT] = str(subject)
        topic = bound.topic if output.topic is None else self.physical(output.topic)
        identity = output.id
        if identity is not None and (problem := _id_problem(identity)) is not None:
            raise _refused(problem, context)
        source = None
        if context is not None:
            source = context.cause_of(output)
            context.inherit(metadata, source, topic)
            if identity is None and (position := context.next_position(output)) is not None:
                identity = derived_id(source.id, context.group, context.handler, position)
        if output.metadata:
            if (problem := wire.metadata_problem(output.metadata)) is not None:
                raise _refused(problem, context)
            metadata.update(self._added(output.metadata, source))
        if not identity:
            identity = new_id()
        if self.apply_profile is not None:
            metadata = {**self.apply_profile(identity, metadata)}
        encoded = Message(
            id=identity,
            topic=topic,
            payload=encode(message, bound.encoding),
            key=key,
            metadata=metadata,
            deduplication_id=f"{identity}:{topic}",
            mandatory=self._mandatory,
        )
        if output.delay is not None:
            encoded.delay = output.delay.total_seconds()
        return wrap(encoded) if self._structured else encoded

    def topic_of(self, publication: PublicationSpec) -> str:
        """Returns the topic of a publication with variables filled. Raises ConfigError."""
        return (self._bound.get(id(publication)) or self._bind(publication)).topic

    def _added(self, given: Mapping[str, str], source: Message | None) -> Mapping[str, str]:
        """Returns the metadata added to an output, without values that belong to its input."""
        if source is None:
            return given
        came = source.metadata
        inputs = {name for name in self._own if name in given and given[name] == came.get(name)}
        return {name: value for name, value in given.items() if name not in inputs}

    def physical(self, template: str) -> str:
        """Returns a topic with variables filled and the namespace. Raises ConfigError."""
        names = NameResolver(self._config.namespace, self._config.variables)
        topic = names.physical(template, "topic of an output")
        if names.problems:
            raise ConfigError(names.problems, code=RESOLVED_CONTRACT)
        return topic

    def _bind(self, publication: PublicationSpec) -> _Bound:
        bound = _Bound(publication, self._config, self.validator)
        self._bound[id(publication)] = bound
        return bound

    def _tick(self, now: float) -> None:
        """Formats the time of events; it has milliseconds, so the text is valid for one."""
        second = int(now)
        self._millisecond = int(now * 1000)
        day = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        self._time = f"{day}.{self._millisecond - second * 1000:03d}Z"


class _Bound:
    """A publication, with everything that does not depend on the message."""

    __slots__ = (
        "check",
        "encoding",
        "key",
        "message_class",
        "metadata",
        "publication",
        "subject",
        "topic",
    )

    def __init__(
        self, publication: PublicationSpec, config: Config, validator: ProtoValidator | None
    ) -> None:
        spec = publication.message
        names = NameResolver(config.namespace, config.variables)
        self.publication = publication  # a reference that keeps the identity from being reused
        self.message_class = spec.message_class
        self.topic = names.physical(publication.topic, f"{spec.type}: topic")
        self.encoding = spec.encoding or config.encoding
        self.check = check_of(spec, validator) if config.validate else None
        self.key = _getter(spec, spec.partition_key) if spec.partition_key else None
        self.subject = _getter(spec, spec.subject) if spec.subject else None
        source = names.fill(spec.source or config.source, f"{spec.type}: source")
        if names.problems:
            raise ConfigError(names.problems, code=RESOLVED_CONTRACT)
        self.metadata = base_metadata(spec, source, self.encoding)


def base_metadata(spec: MessageSpec, source: str, encoding: Encoding) -> dict[str, str]:
    """Returns the CloudEvents attributes that every message of a contract has."""
    metadata = {
        wire.CE_SPECVERSION: "1.0",
        wire.CE_TYPE: spec.type,
        wire.CE_SOURCE: source,
        wire.CONTENT_TYPE: CONTENT_TYPES[encoding],
    }
    if spec.data_schema:
        metadata[wire.CE_DATASCHEMA] = spec.data_schema
    return metadata


def _getter(spec: MessageSpec, name: str) -> Callable[[Any], Any]:
    """Returns the reader of a field; an unset field gives None or an empty value."""
    field = spec.message_class.DESCRIPTOR.fields_by_name[name]
    if field.has_presence:
        return lambda message: getattr(message, name) if message.HasField(name) else None
    if field.cpp_type == field.CPPTYPE_STRING:
        return attrgetter(name)
    return lambda message: getattr(message, name) or None


def _id_problem(id: object) -> str | None:
    if not isinstance(id, str):
        return f"id: {type(id).__name__} is not text; convert it with str()"
    if not id.isprintable():
        return "id: control characters and lone surrogates cannot be sent; remove them"
    return None


def _invalid(problem: str, context: Context | None) -> Exception:
    if context is None:
        return InvalidMessageError(problem)
    # A handler that makes an invalid message would make it again: a retry cannot help.
    return Unprocessable(coded(problem, INVALID_MESSAGE))


def _refused(problem: str, context: Context | None) -> ProtoflowError:
    """Returns a permanent error: a new run of the handler would make the same message."""
    return InvalidMessageError(problem) if context is None else PublishRefusedError(problem)


def _key(value: str | bytes | int) -> bytes | None:
    """Returns the key bytes: UTF-8, raw or decimal; an empty value is no key."""
    if type(value) is str:
        return value.encode() or None
    return value or None if isinstance(value, bytes) else str(value).encode()
