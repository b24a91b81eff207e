"""Spans of publishing and of processing, made by hand because each costs as much as all else.

Names, kinds and attributes: see `protoflow.semconv`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from protoflow import __version__, semconv, wire
from protoflow.errors import MissingExtraError, PublishError
from protoflow.message import Message
from protoflow.tracing.propagation import context_in, extract, headers_of

try:
    from opentelemetry.trace import (
        INVALID_SPAN_CONTEXT,
        NoOpTracerProvider,
        ProxyTracerProvider,
        Span,
        SpanKind,
        StatusCode,
        Tracer,
        TracerProvider,
        get_current_span,
        get_tracer_provider,
    )
except ImportError as error:
    raise MissingExtraError("tracing", "opentelemetry") from error

#: Publishes; one result for each message.
Submit = Callable[[Sequence[Message]], Awaitable[Sequence[PublishError | None]]]


def usable_provider(given: TracerProvider | None) -> TracerProvider | None:
    """The provider; None if spans of it would go nowhere."""
    provider = get_tracer_provider() if given is None else given
    if isinstance(provider, ProxyTracerProvider | NoOpTracerProvider):
        return None
    return provider


def tracer_of(provider: TracerProvider) -> Tracer:
    """The tracer of this library."""
    return provider.get_tracer("protoflow", __version__)


class PublishTracing:
    """Spans of messages that are published outside of handlers.

    Each message has a `send` span of its own from submission to confirmation, and carries it; a
    message that already names a span, outside of any, is sent within that one.
    """

    def __init__(self, provider: TracerProvider, system: str) -> None:
        self._tracer = tracer_of(provider)
        self._system = system

    async def publish(
        self, messages: Sequence[Message], submit: Submit
    ) -> Sequence[PublishError | None]:
        """Publishes messages in spans."""
        spans = [self._start(message) for message in messages]
        try:
            errors = await submit([_carrying(*pair) for pair in zip(messages, spans, strict=True)])
        except BaseException as raised:
            for span in spans:
                failed(span, raised)
                span.end()
            raise
        for span, error in zip(spans, errors, strict=True):
            if error is not None:
                failed(span, error)
            span.end()
        return errors

    def _start(self, message: Message) -> Span:
        parent = None
        if get_current_span().get_span_context() is INVALID_SPAN_CONTEXT:
            parent = context_in(extract(message.metadata), message.metadata)
        return self._tracer.start_span(
            f"send {message.topic}",
            parent,
            SpanKind.PRODUCER,
            sending(self._system, "send", message.topic) | _told(message),
        )


def sending(system: str, operation: str, topic: str) -> dict[str, Any]:
    """The attributes of every span that sends to a topic."""
    return {
        semconv.SYSTEM: system,
        semconv.OPERATION_NAME: operation,
        semconv.OPERATION_TYPE: operation,
        semconv.DESTINATION: topic,
    }


def failed(span: Span, error: BaseException) -> None:
    """The span ends badly. The error's text stays out: it may quote the message."""
    span.set_attribute(semconv.ERROR_TYPE, type(error).__name__)
    span.set_status(StatusCode.ERROR)


def carried(message: Message, headers: Mapping[str, str]) -> Message:
    """The message with other trace headers."""
    metadata = {**message.metadata, **headers}
    if wire.TRACESTATE not in headers:
        metadata.pop(wire.TRACESTATE, None)
    return replace(message, metadata=metadata)


def _carrying(message: Message, span: Span) -> Message:
    return carried(message, headers_of(span))


def _told(message: Message) -> dict[str, Any]:
    told: dict[str, Any] = {
        semconv.MESSAGE_ID: message.id,
        semconv.BODY_SIZE: len(message.payload or b""),
    }
    if correlation := message.metadata.get(wire.CORRELATION_ID):
        told[semconv.CONVERSATION_ID] = correlation
    return told
