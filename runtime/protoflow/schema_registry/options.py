"""The options of the schema registry."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from protoflow.config.named_transports import NamedTransport
from protoflow.config.options import parse_options
from protoflow.config.secret import Secret
from protoflow.errors import ConfigError
from protoflow.transport.kit.security_options import CredentialOptions, TlsOptions

_NAME = "schema_registry"


class SubjectStrategy(enum.StrEnum):
    """How the subject of a message is named; the values of Confluent's clients."""

    #: `<topic>-value`: a topic has one type.
    TOPIC = "topic"
    #: The full name of the type: a type has the same schema in all topics.
    RECORD = "record"
    #: `<topic>-<full name>`: a topic has several types.
    TOPIC_RECORD = "topic_record"

    def subject(self, topic: str, type: str) -> str:
        """Returns the subject of a type in a topic."""
        if self is SubjectStrategy.TOPIC:
            return f"{topic}-value"
        return type if self is SubjectStrategy.RECORD else f"{topic}-{type}"


class IdPlace(enum.StrEnum):
    """Where the id of a schema is written."""

    PAYLOAD = "payload"
    HEADER = "header"


class SchemaFormat(enum.StrEnum):
    """How schemas are sent to the registry."""

    #: The text of the .proto file.
    TEXT = "text"
    #: The descriptor of the file in base64, as `confluent-kafka` for Python sends it.
    SERIALIZED = "serialized"


@dataclass(frozen=True, kw_only=True)
class TopicOptions:
    """The options that `[topics."...".schema_registry]` can change for a topic.

    Attributes:
        enabled: write and read frames.
        subject_strategy: `topic`, `record` or `topic_record`.
        auto_register: register schemas; otherwise they are only looked up.
        ids: `payload`: before the payload; `header`: in a header, on Kafka only.
    """

    enabled: bool = True
    subject_strategy: SubjectStrategy = SubjectStrategy.TOPIC
    auto_register: bool = False
    ids: IdPlace = IdPlace.PAYLOAD


@dataclass(frozen=True, kw_only=True)
class RegistryOptions(TopicOptions, TlsOptions, CredentialOptions):
    """The options of the schema registry; times are seconds.

    Attributes:
        token: a bearer token, in place of user and password.
        format: `text` or `serialized`: how schemas are sent.
        timeout: the most that one request may take.
        longest_wait: the most between two requests to a registry that cannot be reached.
    """

    token: Secret | None = None
    format: SchemaFormat = SchemaFormat.TEXT
    timeout: float = 5.0
    longest_wait: float = 15.0

    def __post_init__(self) -> None:
        problems = list(self.tls_problems())
        problems += [
            f"option {name} must be positive"
            for name in ("timeout", "longest_wait")
            if getattr(self, name) <= 0
        ]
        if self.token and (self.username or self.password):
            problems.append("option token and user or password exclude each other")
        if problems:
            raise ConfigError(problems)


def options_of(registry: NamedTransport) -> RegistryOptions:
    """Returns the options of the settings. Raises ConfigError with every mistake."""
    try:
        options = parse_options(RegistryOptions, registry.url.query, registry.options, _NAME)
    except ConfigError as error:
        raise ConfigError(text.removeprefix("transport: ") for text in error.problems) from None
    if options.token and registry.url.user is not None:
        raise ConfigError(f"{_NAME}: option token and the user in the URL exclude each other")
    return options


def topic_options(topic: str, base: RegistryOptions, given: Mapping[str, Any]) -> TopicOptions:
    """Returns the options of a topic. Raises ConfigError with every mistake."""
    common = {one.name: getattr(base, one.name) for one in fields(TopicOptions)}
    try:
        return parse_options(TopicOptions, {}, {**common, **given}, _NAME)
    except ConfigError as error:
        raise ConfigError(
            text.replace("transport: ", f"topics.{topic!r}.", 1) for text in error.problems
        ) from None
