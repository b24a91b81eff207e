"""Spans of publishing and processing. They are built directly, because the API costs as much as all
other work.

Names, kinds and attributes: see `protoflow.semconv`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from protoflow import __version__, semconv, wire
from protoflow.errors import MissingExtraError, TransportError
from protoflow.message import Message
from protoflow.tracing.propagation import context_in, extract, headers_of

try:
    from opentelemetry.trace import (
        NonRecordingSpan,
        NoOpTracer,
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

#: Names and attributes are cached for this many topics.
_MOST_TOPICS = 200
#: Publishes messages and returns one result for each.
Submit = Callable[[Sequence[Message]], Awaitable[Sequence[TransportError | None]]]


def usable_provider(given: TracerProvider | None) -> TracerProvider | None:
    """Returns the provider; None if it would discard its spans."""
    provider = get_tracer_provider() if given is None else given
    if isinstance(provider, ProxyTracerProvider | NoOpTracerProvider):
        return None
    # With OTEL_SDK_DISABLED, the provider of the SDK gives such tracers.
    return None if isinstance(tracer_of(provider), NoOpTracer) else provider


def drops_unsampled(provider: TracerProvider) -> bool:
    """Whether a child of an unsampled span is certainly unsampled, too. Then no child is made, and
    outputs carry the parent, at a third of the cost."""
    sampler = getattr(provider, "sampler", None)
    # The text is specified: https://opentelemetry.io/docs/specs/otel/trace/sdk/#getdescription
    description = sampler.get_description() if sampler is not None else ""
    return all(
        f"{of}ParentNotSampled:AlwaysOffSampler" in description for of in ("remote", "local")
    )


def tracer_of(provider: TracerProvider) -> Tracer:
    """Returns the tracer of this library."""
    return provider.get_tracer("protoflow", __version__)


class PublishTracing:
    """Spans of messages that are published outside of handlers.

    Each message has its own `send` span from submission to confirmation, and carries it in its
    headers. If a message already names a span and no span is active, it is sent as a child of that
    span.

    Args:
        provider: makes the tracer.
        system_of: returns `messaging.system` of the broker of a topic.
    """

    def __init__(self, provider: TracerProvider, system_of: Callable[[str], str]) -> None:
        self._tracer = tracer_of(provider)
        self._system_of = system_of
        self._drops = drops_unsampled(provider)
        self._recorded = True
        self._names: dict[str, tuple[str, dict[str, Any]]] = {}

    async def publish(
        self, messages: Sequence[Message], submit: Submit, *, owned: bool = False
    ) -> Sequence[TransportError | None]:
        """Publishes messages in spans.

        Args:
            messages: the messages.
            submit: publishes them.
            owned: whether the messages were made for this call, so that their metadata may be
                changed.
        """
        spans = [self._start(message) for message in messages]
        try:
            carry = _mark if owned else _carrying
            errors = await submit([carry(*pair) for pair in zip(messages, spans, strict=True)])
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
        parent, above = None, get_current_span()
        if not above.get_span_context().is_valid and wire.TRACEPARENT in message.metadata:
            parent = context_in(extract(message.metadata), message.metadata)
            above = get_current_span(parent)
        if self._drops and is_unsampled(above):
            return NonRecordingSpan(above.get_span_context())
        name, fixed = self._names.get(message.topic) or self._bind(message.topic)
        # The last span was not sampled, so this one is hardly sampled: it gets no attributes.
        attributes = {**fixed, **_attributes(message)} if self._recorded else fixed
        span = self._tracer.start_span(name, parent, SpanKind.PRODUCER, attributes)
        recorded = span.is_recording()
        if recorded and not self._recorded:
            span.set_attributes(_attributes(message))
        self._recorded = recorded
        return span

    def _bind(self, topic: str) -> tuple[str, dict[str, Any]]:
        bound = f"send {topic}", sending(self._system_of(topic), "send", topic)
        if len(self._names) < _MOST_TOPICS:
            self._names[topic] = bound
        return bound


def is_unsampled(span: Span) -> bool:
    """Whether the argument is a span that is not sampled."""
    context = span.get_span_context()
    return context.is_valid and not context.trace_flags.sampled


def sending(system: str, operation: str, topic: str) -> dict[str, Any]:
    """Returns the attributes of every span that sends to a topic."""
    return {
        semconv.SYSTEM: system,
        semconv.OPERATION_NAME: operation,
        semconv.OPERATION_TYPE: operation,
        semconv.DESTINATION: topic,
    }


def failed(span: Span, error: BaseException) -> None:
    """Ends the span as failed. The error's text is left out: it may contain the message."""
    span.set_attribute(semconv.ERROR_TYPE, type(error).__name__)
    span.set_status(StatusCode.ERROR)


def carried(message: Message, headers: Mapping[str, str]) -> Message:
    """Returns the message with other trace headers."""
    metadata = {**message.metadata, **headers}
    if wire.TRACESTATE not in headers:
        metadata.pop(wire.TRACESTATE, None)
    return replace(message, metadata=metadata)


def _mark(message: Message, span: Span) -> Message:
    cast("dict[str, str]", message.metadata).update(headers_of(span))
    return message


def _carrying(message: Message, span: Span) -> Message:
    return carried(message, headers_of(span))


def _attributes(message: Message) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        semconv.MESSAGE_ID: message.id,
        semconv.BODY_SIZE: len(message.payload or b""),
    }
    if correlation := message.metadata.get(wire.CORRELATION_ID):
        attributes[semconv.CONVERSATION_ID] = correlation
    return attributes
