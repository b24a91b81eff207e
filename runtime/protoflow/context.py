"""What a handler knows of the message it handles, and how it publishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from protoflow import wire
from protoflow.ids import derived_id

if TYPE_CHECKING:
    import logging
    import threading
    from collections.abc import Callable

    from protoflow.message import Delivery, Message
    from protoflow.output import AnyOutput
    from protoflow.spec import PublicationSpec


class OutputEncoder(Protocol):
    """Turns an output into the message to publish, once per output."""

    def __call__(
        self, publication: PublicationSpec, output: AnyOutput, context: Context
    ) -> Message:
        """The message, encoded."""
        ...


class Context:
    """One run of a handler: the message beneath, and what is published with its outcome.

    What is published through a context goes out with the handler's outcome, in call
    order, and is dropped when the run fails. A context is a `Publisher`.

    Attributes:
        delivery: the delivery as the broker handed it over.
        message: the raw message.
        attempt: which run of the handler this is, from 1.
        deadline: when the run times out, in `Clock.monotonic` seconds; None is never.
        cancelled: set when the run was cancelled or timed out; for handlers in threads.
        handler: the full name of the method, `shop.v1.Orders.BillOrder`.
        group: the consumer group.
        carry: gives the trace headers of an output to a topic; None is those of the input.
            Set by tracing.
        outputs: what was published through this context so far, encoded.
        decoded: the decoded input, once somebody asked for it (see `HandlerSpec.decode`).
    """

    __slots__ = (
        "_cancelled",
        "_encode",
        "_logger",
        "_position",
        "_values",
        "_when_confirmed",
        "attempt",
        "carry",
        "deadline",
        "decoded",
        "delivery",
        "group",
        "handler",
        "message",
        "outputs",
    )

    def __init__(
        self,
        delivery: Delivery,
        message: Message,
        attempt: int,
        handler: str,
        group: str,
        encode: OutputEncoder,
    ) -> None:
        self.delivery = delivery
        self.message = message
        self.attempt = attempt
        self.handler = handler
        self.group = group
        self.deadline: float | None = None
        self.decoded: Any = None
        self.carry: Callable[[str], Mapping[str, str]] | None = None
        self._encode = encode
        self.outputs: Sequence[Message] = ()
        self._position = 0
        self._cancelled: threading.Event | None = None
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None
        self._values: dict[str, Any] | None = None
        self._when_confirmed: tuple[Callable[[], None], ...] = ()

    @property
    def id(self) -> str:
        """The message id; the same through retry, dead letter and replay."""
        return self.message.id

    @property
    def topic(self) -> str:
        """The topic that the message came from, namespace included."""
        return self.message.topic

    @property
    def key(self) -> bytes | None:
        """The partition key."""
        return self.message.key

    @property
    def metadata(self) -> Mapping[str, str]:
        """The string pairs beside the payload."""
        return self.message.metadata

    @property
    def correlation_id(self) -> str:
        """The correlation id; the id of the message where none came along."""
        return self.message.metadata.get(wire.CORRELATION_ID) or self.message.id

    @property
    def values(self) -> dict[str, Any]:
        """Anything that middlewares leave for handlers, by name."""
        if self._values is None:
            self._values = {}
        return self._values

    @property
    def cancelled(self) -> threading.Event:
        """Set when this run was cancelled or timed out."""
        if self._cancelled is None:
            from threading import Event  # here: modules that name `Context` need none

            self._cancelled = Event()
        return self._cancelled

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that names handler, topic, message id and attempt in its records."""
        if self._logger is None:
            from logging import LoggerAdapter, getLogger  # likewise

            self._logger = LoggerAdapter(
                getLogger("protoflow.handler"),
                {
                    "handler": self.handler,
                    "topic": self.topic,
                    "message_id": self.id,
                    "attempt": self.attempt,
                    "correlation_id": self.correlation_id,
                },
            )
        return self._logger

    async def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Keeps outputs until the run ends well; their ids. See `Publisher`."""
        return [self.add_output(publication, output) for output in outputs]

    async def publish(self, *messages: Message) -> None:
        """Keeps raw messages until the run ends well."""
        for message in messages:
            self._keep(self._traced(message))

    def add_output(self, publication: PublicationSpec, output: AnyOutput) -> str:
        """Keeps one output until the run ends well; its id."""
        message = self._encode(publication, output, self)
        self._keep(message)
        return message.id

    def reserve_position(self) -> int:
        """The next position among the outputs of this run, from 0."""
        self._position += 1
        return self._position - 1

    def output_id(self, position: int) -> str:
        """The id of the output at a position: the same whenever this input is handled again."""
        return derived_id(self.message.id, self.group, self.handler, position)

    def inherited(self, topic: str) -> dict[str, str]:
        """What an output to a topic inherits: correlation and causation id, and the trace."""
        metadata = {
            wire.CORRELATION_ID: self.correlation_id,
            wire.CAUSATION_ID: self.message.id,
        }
        if self.carry is not None:
            return {**metadata, **self.carry(topic)}
        for name in wire.TRACE_CONTEXT:
            if name in self.message.metadata:
                metadata[name] = self.message.metadata[name]
        return metadata

    def when_confirmed(self, call: Callable[[], None]) -> None:
        """Calls when this run has ended well and its outputs are confirmed; for middlewares
        that must remember success."""
        self._when_confirmed = (*self._when_confirmed, call)

    def confirm(self) -> None:
        """The outputs are confirmed; for the runtime."""
        calls, self._when_confirmed = self._when_confirmed, ()
        for call in calls:
            call()

    def cause_of(self, output: AnyOutput) -> Message:
        """The input that an output is of; for the runtime."""
        return self.message

    def next_position(self, output: AnyOutput) -> int | None:
        """The position of an output among those of its input, from 0; None gives it a
        fresh id. For the runtime."""
        return self.reserve_position()

    def take_outputs(self) -> list[Message]:
        """The outputs kept so far, which are kept no longer; for the runtime."""
        outputs, self.outputs = self.outputs, ()
        return list(outputs)

    @property
    def was_cancelled(self) -> bool:
        """Whether the run was cancelled or timed out."""
        return self._cancelled is not None and self._cancelled.is_set()

    def mark_cancelled(self) -> None:
        """Tells the handler that nobody waits for it; for the runtime."""
        self.cancelled.set()

    def _traced(self, message: Message) -> Message:
        if self.carry is None or wire.TRACEPARENT in message.metadata:
            return message
        return replace(message, metadata={**message.metadata, **self.carry(message.topic)})

    def _keep(self, message: Message) -> None:
        if isinstance(self.outputs, list):
            self.outputs.append(message)
        else:  # most runs publish nothing, and share the empty tuple
            self.outputs = [message]


class SyncContext:
    """The context of a handler that runs in a thread; a `SyncPublisher`."""

    __slots__ = ("_call", "context")

    def __init__(self, context: Context, call: Callable[..., Any]) -> None:
        #: The context on the event loop, for its read-only attributes.
        self.context = context
        # Runs a function on the loop and waits: encoding shares state with the loop.
        self._call = call

    @property
    def message(self) -> Message:
        """The raw message."""
        return self.context.message

    @property
    def id(self) -> str:
        """The message id."""
        return self.context.id

    @property
    def topic(self) -> str:
        """The topic that the message came from, namespace included."""
        return self.context.topic

    @property
    def key(self) -> bytes | None:
        """The partition key."""
        return self.context.key

    @property
    def metadata(self) -> Mapping[str, str]:
        """The string pairs beside the payload."""
        return self.context.metadata

    @property
    def attempt(self) -> int:
        """Which run of the handler this is, from 1."""
        return self.context.attempt

    @property
    def correlation_id(self) -> str:
        """The correlation id."""
        return self.context.correlation_id

    @property
    def deadline(self) -> float | None:
        """When the run times out, in `Clock.monotonic` seconds; None is never."""
        return self.context.deadline

    @property
    def cancelled(self) -> threading.Event:
        """Set when this run timed out or was cancelled: return soon, nobody waits."""
        return self.context.cancelled

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that names handler, topic, message id and attempt in its records."""
        return self.context.logger

    def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Keeps outputs until the run ends well; their ids. See `SyncPublisher`."""
        ids: list[str] = self._call(
            lambda: [self.context.add_output(publication, output) for output in outputs]
        )
        return ids
