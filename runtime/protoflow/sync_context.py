"""The context of a handler that runs in a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from protoflow.unprepared import Unprepared

if TYPE_CHECKING:
    import logging
    import threading
    from collections.abc import Callable

    from protoflow.attributes import CloudEventAttributes
    from protoflow.context import Context
    from protoflow.contract.spec import PublicationSpec
    from protoflow.message import Message
    from protoflow.output import AnyOutput


class SyncContext:
    """The context of a handler that runs in a thread; a `SyncPublisher`."""

    __slots__ = ("_call", "context")

    def __init__(self, context: Context, call: Callable[..., Any]) -> None:
        #: The context on the event loop, for its read-only attributes.
        self.context = context
        # Runs a function on the loop and waits, because encoding shares state with the loop.
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
        """The topic of the message, including the namespace."""
        return self.context.topic

    @property
    def key(self) -> bytes | None:
        """The partition key."""
        return self.context.key

    @property
    def metadata(self) -> Mapping[str, str]:
        """The string pairs beside the payload; see `Context.metadata`."""
        return self.context.metadata

    @property
    def cloudevent(self) -> CloudEventAttributes:
        """The CloudEvents attributes of the message."""
        return self.context.cloudevent

    @property
    def attempt(self) -> int:
        """The number of this run, from 1."""
        return self.context.attempt

    @property
    def correlation_id(self) -> str:
        """The correlation id."""
        return self.context.correlation_id

    @property
    def deadline(self) -> float | None:
        """The time limit of the run, in `Clock.monotonic` seconds; None is no limit."""
        return self.context.deadline

    @property
    def cancelled(self) -> threading.Event:
        """An event that is set if the run timed out or was cancelled; the handler should return."""
        return self.context.cancelled

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that names handler, topic, message id and attempt in its records."""
        return self.context.logger

    def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Keeps outputs until the run succeeds, and returns their ids. See `SyncPublisher`."""
        ids: list[str] = []

        def keep() -> None:
            for output in outputs[len(ids) :]:
                ids.append(  # noqa: PERF401  those before one that raises are kept
                    self.context.add_output(publication, output)
                )

        while True:
            try:
                self._call(keep)
            except Unprepared as needed:
                needed.prepare_from_thread()
            else:
                return ids
