"""The context of a run: the message and its delivery, and a publisher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from protoflow import wire
from protoflow.errors import Unprepared
from protoflow.ids import derived_id

if TYPE_CHECKING:
    import logging
    import threading
    from collections.abc import Callable

    from protoflow.attributes import CloudEventAttributes
    from protoflow.contract.spec import PublicationSpec
    from protoflow.message import Delivery, Message
    from protoflow.output import AnyOutput


#: `Context.values` holds the connection of the run's own transaction under this name.
CONNECTION = "connection"


class OutputEncoder(Protocol):
    """Turns an output into the message to publish, once per output."""

    def __call__(
        self, publication: PublicationSpec, output: AnyOutput, context: Context
    ) -> Message:
        """Returns the encoded message."""
        ...


class Context:
    """One run of a handler: its message, and the outputs to publish with its outcome.

    Messages that are published through a context are sent with the handler's outcome, in call
    order, and dropped if the run fails. A context is a `Publisher`.

    Attributes:
        delivery: the delivery as the broker handed it over.
        message: the raw message.
        attempt: which run of the handler this is, from 1.
        deadline: the time limit of the run, in `Clock.monotonic` seconds; None is no limit.
        cancelled: set if the run was cancelled or timed out; for handlers in threads.
        handler: the full name of the method, `shop.v1.Orders.BillOrder`.
        group: the consumer group.
        inject: returns the trace headers of an output to a topic; None copies those of the input.
            Tracing sets it.
        outputs: the encoded messages published through this context so far.
        decoded: the decoded input, after its first use (see `HandlerSpec.decode`).
    """

    __slots__ = (
        "_cancelled",
        "_encode",
        "_logger",
        "_metadata",
        "_on_confirmed",
        "_position",
        "_values",
        "attempt",
        "deadline",
        "decoded",
        "delivery",
        "group",
        "handler",
        "inject",
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
        self.inject: Callable[[str], Mapping[str, str]] | None = None
        self._encode = encode
        self.outputs: Sequence[Message] = ()
        self._position = 0
        self._cancelled: threading.Event | None = None
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None
        self._metadata: dict[str, str] | None = None
        self._values: dict[str, Any] | None = None
        self._on_confirmed: tuple[Callable[[], None], ...] = ()

    @property
    def id(self) -> str:
        """The message id; it stays the same through retry, dead letter and replay."""
        return self.message.id

    @property
    def topic(self) -> str:
        """The topic of the message, including the namespace."""
        return self.message.topic

    @property
    def key(self) -> bytes | None:
        """The partition key."""
        return self.message.key

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata without reserved names, so an output can copy it. `message.metadata` has all
        names, and `cloudevent` the attributes of CloudEvents."""
        if self._metadata is None:
            reserved = wire.reserved
            self._metadata = {
                name: value for name, value in self.message.metadata.items() if not reserved(name)
            }
        return self._metadata

    @property
    def cloudevent(self) -> CloudEventAttributes:
        """The CloudEvents attributes of the message."""
        # imported here, because few handlers use it
        from protoflow.attributes import CloudEventAttributes

        return CloudEventAttributes(self.message)

    @property
    def correlation_id(self) -> str:
        """The correlation id; the message id if there is none or it is invalid."""
        message = self.message
        found = message.metadata.get(wire.CORRELATION_ID) or message.id
        return found if found.isprintable() else _fresh(message)

    @property
    def values(self) -> dict[str, Any]:
        """Values that middleware passes to handlers, by name."""
        if self._values is None:
            self._values = {}
        return self._values

    @property
    def cancelled(self) -> threading.Event:
        """An event that is set if this run was cancelled or timed out."""
        if self._cancelled is None:
            # imported here, because modules that only name `Context` do not need threads
            from threading import Event

            self._cancelled = Event()
        return self._cancelled

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that names handler, topic, message id and attempt in its records."""
        if self._logger is None:
            from protoflow.codecs.printable import printable  # likewise
            from protoflow.context_logger import ContextLogger

            self._logger = ContextLogger(
                {
                    "handler": self.handler,
                    "topic": self.topic,
                    "message_id": printable(self.id),
                    "attempt": self.attempt,
                    "correlation_id": self.correlation_id,
                }
            )
        return self._logger

    async def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Keeps outputs until the run succeeds, and returns their ids. See `Publisher`."""
        ids: list[str] = []
        while len(ids) < len(outputs):
            try:
                ids.append(self.add_output(publication, outputs[len(ids)]))
            except Unprepared as needed:
                await needed.prepare()
        return ids

    async def publish(self, *messages: Message) -> None:
        """Keeps raw messages until the run succeeds, without hop state in their metadata.

        Raises:
            PublishRefusedError: metadata has names of broker commands, or values that are not text.
        """
        for message in [self._checked(message) for message in messages]:
            self.keep(message)

    def keep(self, message: Message) -> None:
        """Keeps a message until the run succeeds; for the runtime."""
        self._keep(self._traced(message))

    def add_output(self, publication: PublicationSpec, output: AnyOutput) -> str:
        """Keeps one output until the run succeeds, and returns its id."""
        message = self._encode(publication, output, self)
        self._keep(message)
        return message.id

    def reserve_position(self) -> int:
        """Reserves the next position among the outputs of this run, from 0."""
        self._position += 1
        return self._position - 1

    def output_id(self, position: int) -> str:
        """Returns the output id for a position; every run of the input returns the same id."""
        return derived_id(self.message.id, self.group, self.handler, position)

    def inherited(self, topic: str) -> dict[str, str]:
        """Returns the headers an output inherits: correlation and causation id, and the trace."""
        metadata: dict[str, str] = {}
        self.inherit(metadata, self.message, topic)
        return metadata

    def inherit(self, metadata: dict[str, str], source: Message, topic: str) -> None:
        """Writes the headers that an output inherits from its input; for the runtime. Those with
        control characters or lone surrogates are left out, because some brokers refuse them."""
        incoming = source.metadata
        correlation = incoming.get(wire.CORRELATION_ID) or source.id
        metadata[wire.CORRELATION_ID] = correlation if correlation.isprintable() else _fresh(source)
        if source.id.isprintable():
            metadata[wire.CAUSATION_ID] = source.id
        if self.inject is not None:
            metadata.update(self.inject(topic))
            return
        for name in wire.TRACE_CONTEXT:
            if name in incoming and incoming[name].isprintable():
                metadata[name] = incoming[name]

    def on_confirmed(self, call: Callable[[], None]) -> None:
        """Registers a function that is called when the run has succeeded and its outputs are
        confirmed. Middleware that records successes uses it."""
        self._on_confirmed = (*self._on_confirmed, call)

    def confirm(self) -> None:
        """Calls the registered functions after the outputs are confirmed; for the runtime."""
        calls, self._on_confirmed = self._on_confirmed, ()
        for call in calls:
            call()

    def cause_of(self, output: AnyOutput) -> Message:
        """Returns the input that caused an output; for the runtime."""
        return self.message

    def next_position(self, output: AnyOutput) -> int | None:
        """Returns the position of an output among those of its input, from 0. For the runtime.

        None means that the output gets a fresh id.
        """
        return self.reserve_position()

    def restart(self) -> None:
        """Forgets the published outputs because the run begins again; for the runtime."""
        self.outputs, self._position, self._on_confirmed = (), 0, ()
        self.decoded = None  # the handler may have changed the input

    def take_outputs(self) -> list[Message]:
        """Returns the kept outputs and forgets them; for the runtime."""
        outputs, self.outputs = self.outputs, ()
        return list(outputs)

    def mark_cancelled(self) -> None:
        """Sets `cancelled`, for handlers in threads; for the runtime."""
        self.cancelled.set()

    def _checked(self, message: Message) -> Message:
        metadata = message.metadata
        own = wire.without_orders_of(self.message.metadata, metadata)
        if (problem := wire.raw_problem(message.id, own)) is not None:
            from protoflow.errors import PublishRefusedError  # imported here; see `logger`

            raise PublishRefusedError(problem)
        return message if len(own) == len(metadata) else replace(message, metadata=own)

    def _traced(self, message: Message) -> Message:
        if self.inject is None or wire.TRACEPARENT in message.metadata:
            return message
        return replace(message, metadata={**message.metadata, **self.inject(message.topic)})

    def _keep(self, message: Message) -> None:
        if isinstance(self.outputs, list):
            self.outputs.append(message)
        else:  # most runs publish nothing, so they share the empty tuple
            self.outputs = [message]


def _fresh(source: Message) -> str:
    """Returns a correlation id that replaces an invalid one; equal values get equal ids."""
    return derived_id(source.id, "correlation")
