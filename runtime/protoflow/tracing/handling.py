"""The span around a run of a handler, and the trace headers of its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from opentelemetry.context import Context as TraceContext
from opentelemetry.context import attach, detach
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TracerProvider,
    get_current_span,
    set_span_in_context,
)

from protoflow import semconv, wire
from protoflow.context import Context
from protoflow.failure_policy import Dropped
from protoflow.message import Delivery, Message
from protoflow.outcomes import DONE, DeadLetter, Outcome, Postpone, Skip
from protoflow.pipeline import HandlerSpec, Next
from protoflow.routing.routes import output_systems, system_of
from protoflow.tracing.propagation import context_in, extract, headers_of, span_context
from protoflow.tracing.spans import drops_unsampled, failed, is_unsampled, sending, tracer_of

#: By default a span has at most this many links (OTEL_SPAN_LINK_COUNT_LIMIT).
_MOST_LINKS = 128


class HandlerTracing:
    """The spans of one handler; values that do not depend on the message are bound once."""

    def __init__(self, provider: TracerProvider, spec: HandlerSpec) -> None:
        self._spec = spec
        self._tracer = tracer_of(provider)
        self._system = system_of(spec.config, spec.transport)
        self._output_system = output_systems(spec.config)
        self._kafka = self._system == "kafka"
        self._linked = spec.config.trace_links
        self._recorded = True
        self._drops = drops_unsampled(provider)
        self._name = f"process {spec.topic}"
        self._fixed: dict[str, Any] = sending(self._system, "process", spec.topic) | {
            semconv.GROUP: spec.group,
            semconv.HANDLER: spec.name,
        }

    def middleware(self, next: Next) -> Next:
        """Returns the rest of the chain inside a span."""
        start = self._start_batch if self._spec.batched else self._start

        async def run(delivery: Delivery, context: Context) -> Outcome:
            span, within = start(delivery, context)
            within = set_span_in_context(span, within)
            context.inject = partial(self._inject, within)
            token = attach(within)
            try:
                outcome = await next(delivery, context)
                if outcome is not DONE:
                    self._ended(span, within, outcome, delivery)
                return outcome
            except BaseException as error:
                failed(span, error)
                raise
            finally:
                detach(token)
                span.end()

        return run

    def _start(self, delivery: Delivery, context: Context) -> tuple[Span, TraceContext]:
        message = context.message
        metadata = message.metadata
        sender, links = self._origin(delivery, metadata)
        if self._linked and sender is not None:
            links = [*links, Link(sender)]
        within = context_in(None if self._linked else sender, metadata)
        if self._drops and not self._linked and sender and not sender.trace_flags.sampled:
            return NonRecordingSpan(sender), within
        # The parent is not sampled, so this span is hardly sampled: it gets no attributes.
        quiet = not (self._recorded if sender is None else sender.trace_flags.sampled)
        span = self._tracer.start_span(
            self._name,
            within,
            SpanKind.CONSUMER,
            self._fixed if quiet else self._attributes(delivery, context, message),
            links,
        )
        self._recorded = span.is_recording()
        if quiet and self._recorded:
            span.set_attributes(self._attributes(delivery, context, message))
        return span, within

    def _start_batch(self, delivery: Delivery, context: Context) -> tuple[Span, TraceContext]:
        items: Sequence[Context] = getattr(context, "items", ())
        senders = (extract(item.message.metadata) for item in items)
        links = [Link(sender) for sender in senders if sender is not None][:_MOST_LINKS]
        within = context_in(None, {})
        attributes = self._fixed | {semconv.BATCH_SIZE: len(items)}
        span = self._tracer.start_span(self._name, within, SpanKind.CONSUMER, attributes, links)
        return span, within

    def _origin(
        self, delivery: Delivery, metadata: Mapping[str, str]
    ) -> tuple[SpanContext | None, list[Link]]:
        """Returns the parent span of a run, and a link to the first sender's span if it differs.

        For a retry, in memory or by the broker, the parent is the previous run; otherwise it is the
        sender's span.
        """
        sender = extract(metadata)
        first = metadata.get(wire.PF_TRACEPARENT)
        if delivery.hop is not None:
            previous = extract(delivery.hop)
            first = delivery.hop.get(wire.PF_TRACEPARENT)
            sender = previous or sender
        if first is None or (origin := span_context(first, None)) is None:
            return sender, []
        return sender, [Link(origin)]

    def _attributes(self, delivery: Delivery, context: Context, message: Message) -> dict[str, Any]:
        attributes = {
            **self._fixed,
            semconv.MESSAGE_ID: message.id,
            semconv.BODY_SIZE: len(message.payload or b""),
        }
        if correlation := message.metadata.get(wire.CORRELATION_ID):
            attributes[semconv.CONVERSATION_ID] = correlation
        if context.attempt > 1:
            attributes[semconv.ATTEMPT] = context.attempt
        if self._kafka:
            attributes[semconv.PARTITION] = str(delivery.shard)
            attributes[semconv.KAFKA_OFFSET] = delivery.position
        return attributes

    def _ended(
        self, span: Span, within: TraceContext, outcome: Outcome, delivery: Delivery
    ) -> None:
        if isinstance(outcome, Skip) and not isinstance(outcome, Dropped):
            span.set_attribute(semconv.OUTCOME, "skip")
            return
        if isinstance(outcome, Postpone):
            span.set_attribute(semconv.OUTCOME, "postpone")
            return
        span.set_attribute(semconv.OUTCOME, type(outcome).__name__)
        failed(span, outcome.__cause__ or outcome)
        if isinstance(outcome, DeadLetter):
            headers = self._sent(self._spec.dead_letter_topic, within, self._system)
        else:
            headers = headers_of(span, within)
        delivery.hop = _hop(delivery, headers)

    def _inject(self, within: TraceContext, topic: str) -> Mapping[str, str]:
        """Returns the trace headers of an output: its own span, below the handler's current one."""
        # In a thread, the current span is not the handler's span.
        ours = get_current_span(within).get_span_context().trace_id
        current = get_current_span().get_span_context().trace_id
        return self._sent(topic, None if current == ours else within)

    def _sent(self, topic: str, within: TraceContext | None, system: str = "") -> dict[str, str]:
        # `create`: the message is created here and sent after the run has ended.
        above = get_current_span(within)
        if self._drops and is_unsampled(above):
            return headers_of(above, within)
        attributes = sending(system or self._output_system(topic), "create", topic)
        span = self._tracer.start_span(f"create {topic}", within, SpanKind.PRODUCER, attributes)
        span.end()
        return headers_of(span, within)


def _hop(delivery: Delivery, headers: dict[str, str]) -> dict[str, str]:
    """Returns the trace headers of a retry or dead letter: this run and the first sender."""
    metadata = delivery.message.metadata
    first = metadata.get(wire.PF_TRACEPARENT) or metadata.get(wire.TRACEPARENT)
    if first is not None:
        headers[wire.PF_TRACEPARENT] = first
    return headers
