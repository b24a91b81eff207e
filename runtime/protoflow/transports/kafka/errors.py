"""Translates aiokafka's exceptions, and detects errors that repetition cannot fix."""

from __future__ import annotations

import asyncio
import ssl

from aiokafka import errors as kafka

from protoflow.error_codes import NO_RIGHT_TO_PUBLISH, TLS, TOO_LARGE, TOPOLOGY_MISSING
from protoflow.errors import (
    AuthenticationError,
    ConnectionFailedError,
    PublishError,
    PublishRefusedError,
    TransportError,
)

_DENIED = (
    kafka.AuthenticationFailedError,
    kafka.AuthenticationMethodNotSupported,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.TransactionalIdAuthorizationFailed,
)
_TOO_LARGE = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError)
_INVALID = (kafka.InvalidTopicError, kafka.PolicyViolationError, kafka.InvalidRequestError)


def is_denied(error: BaseException) -> bool:
    """Whether credentials or missing rights caused the error."""
    return isinstance(error, _DENIED)


def transport_error(error: BaseException, what: str, where: str) -> TransportError:
    """Returns the exception for a failure; `where` is a host or topic, never a secret."""
    if isinstance(error, TransportError):
        return error
    if is_denied(error):
        translated: TransportError = AuthenticationError(
            f"kafka: {what}: {where} refused the credentials, or a right is missing"
            f" ({type(error).__name__})"
        )
    elif isinstance(error, ssl.SSLError):
        translated = ConnectionFailedError(
            f"kafka: {what}: TLS with {where} failed ({error.reason}); check tls_ca_file", code=TLS
        )
    elif isinstance(error, OSError | asyncio.TimeoutError | kafka.KafkaConnectionError):
        translated = ConnectionFailedError(
            f"kafka: {what}: {where} cannot be reached ({type(error).__name__}); check that the"
            " addresses which the brokers advertise can be reached from here"
        )
    else:
        translated = TransportError(f"kafka: {what}: {where}: {type(error).__name__}")
    translated.__cause__ = error
    return translated


def publish_error(error: BaseException, topic: str, size: int) -> PublishError:
    """Returns the error of a message that was not stored."""
    if isinstance(error, PublishError):
        return error
    if isinstance(error, _TOO_LARGE):
        translated: PublishError = too_large(topic, size, None)
    elif isinstance(error, kafka.TopicAuthorizationFailedError):
        translated = PublishRefusedError(
            f"kafka: not authorised to publish to topic {topic}", code=NO_RIGHT_TO_PUBLISH
        )
    elif isinstance(error, _INVALID):
        translated = PublishRefusedError(
            f"kafka: topic {topic} refused the message ({type(error).__name__})"
        )
    elif isinstance(error, kafka.UnknownTopicOrPartitionError | asyncio.TimeoutError):
        translated = PublishError(
            f"kafka: topic {topic} does not exist, or its leader is not known; create the topic",
            code=TOPOLOGY_MISSING,
        )
    else:
        translated = PublishError(
            f"kafka: publishing to topic {topic} failed ({type(error).__name__})"
        )
    translated.__cause__ = error
    return translated


def malformed(error: BaseException, topic: str) -> PublishRefusedError:
    """Returns the error of a message that cannot be written as a record."""
    translated = PublishRefusedError(
        f"kafka: topic {topic}: the message is malformed ({type(error).__name__}); payload and key"
        " must be bytes, metadata text"
    )
    translated.__cause__ = error
    return translated


def too_large(topic: str, size: int, limit: int | None) -> PublishRefusedError:
    """Returns the error of a message that is larger than topic or client allow."""
    bound = "" if limit is None else f", above the limit of {limit}"
    return PublishRefusedError(
        f"kafka: topic {topic}: the message has {size} bytes{bound}; raise max.message.bytes of"
        " the topic and max_request_size of the transport, or send less",
        code=TOO_LARGE,
    )
