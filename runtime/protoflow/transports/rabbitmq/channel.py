"""The connection and channel of aiormq, with a fast path for messages.

aiormq makes a task for each delivery and each publish, which is most of the cost of a message. Here
deliveries, returns and confirmations are taken directly from the connection's reader, in order, and
passed to callbacks. aiormq handles everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import aiormq
import aiormq.exceptions
from aiormq.abc import ChannelFrame
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.commands import Channel as Methods
from pamqp.commands import Queue as QueueMethods
from pamqp.common import FieldTable
from yarl import URL

from protoflow.transports.rabbitmq import reading
from protoflow.transports.rabbitmq.reading import Handed, Properties
from protoflow.transports.rabbitmq.stream import BlockedCallback, Wire

_logger = logging.getLogger("protoflow.rabbitmq")

#: The exceptions of a failed broker or connection; TimeoutError is an OSError.
FAILURES = (
    aiormq.exceptions.AMQPError,
    OSError,
    RuntimeError,  # aiormq's exception for a closed connection or channel
)

DeliverCallback = Callable[[Handed, Properties, bytes], None]
ReturnCallback = Callable[[str, Properties], None]
ConfirmCallback = Callable[[int, bool, bool], None]


class Connection(aiormq.Connection):
    """A connection whose channels have the fast path."""

    # a write never waits, because the messages in flight are bounded elsewhere
    FRAME_BUFFER_SIZE = 0

    def __init__(
        self,
        url: URL,
        *,
        context: Any = None,  # Any: ssl.SSLContext, or None
        client_properties: FieldTable,
        blocked: BlockedCallback,
    ) -> None:
        self._wire = Wire(url.scheme, blocked)
        super().__init__(
            url, context=context, client_properties=client_properties, transport_factory=self._wire
        )

    def abort(self) -> None:
        """Ends the connection without a protocol close."""
        self._wire.abort()

    async def open_channel(self, timeout: float, *, confirms: bool = True) -> Channel:
        """Opens a new channel."""
        number = next(number for number in itertools.count(1) if number not in self.channels)
        channel = Channel(self, number, publisher_confirms=confirms, timeout=timeout)
        self.channels[number] = channel
        with true_cancellation():
            await channel.open(timeout)
        return channel

    @property
    def version(self) -> tuple[int, int]:
        """Returns the server's version; (0, 0) if it is unknown."""
        text = str(self.server_properties.get("version", ""))
        parts = [part for part in text.split(".")[:2] if part.isdecimal()]
        return (int(parts[0]), int(parts[1])) if len(parts) == 2 else (0, 0)


class Channel(aiormq.Channel):
    """A channel.

    Attributes:
        on_deliver: called with each delivery to consumers that were made with `consume`.
        on_return: called with the routing key of each unroutable message; its confirmation follows.
        on_confirm: called with the tag, whether all earlier tags are included, and whether it is an
            ack.
        on_prefetch_set: called when the broker has processed all earlier frames.
        on_cancel: called with the tag of a consumer that the broker ended.
        closed_by_broker: the reason, as code and text.
    """

    def __init__(
        self, connection: Connection, number: int, *, publisher_confirms: bool, timeout: float
    ) -> None:
        super().__init__(connection, number, publisher_confirms=publisher_confirms)
        self.frames = _Tap(self._take)
        self.on_deliver: DeliverCallback = _ignore
        self.on_return: ReturnCallback = _ignore
        self.on_confirm: ConfirmCallback = _ignore
        self.on_prefetch_set: Callable[[], None] = _ignore
        self.on_cancel: Callable[[str], None] = _ignore
        self.closed_by_broker: tuple[int, str] | None = None
        self.frame_max: int = connection.connection_tune.frame_max
        self._connection = connection
        self._timeout = timeout
        self._method: bytes | None = None
        self._properties: Properties | None = None
        self._pieces: list[bytes] = []
        self._missing = 0
        self._getting = asyncio.Lock()
        self._got: tuple[Handed, Properties, bytes] | None = None
        self._tapping = False

    def send(self, frames: bytes) -> None:
        """Sends frames after all earlier ones."""
        self.write_queue.put_nowait(ChannelFrame(payload=frames, should_close=False))

    def tap(self) -> None:
        """From now on, callbacks get the frames that `aiormq` would get."""
        self._tapping = True

    async def request(self, frame: Frame) -> Any:  # Any: the reply that belongs to the frame
        """Sends a method and waits for its reply. Raises FAILURES."""
        with true_cancellation():
            return await self.rpc(frame, timeout=self._timeout)

    async def get(self, queue: str) -> tuple[Handed, Properties, bytes] | None:
        """Takes one message, to be acknowledged; None if the queue is empty. Raises FAILURES."""
        async with self._getting:
            reply = await self.request(Basic.Get(queue=queue))
            got, self._got = self._got, None
        return got if isinstance(reply, Basic.GetOk) else None

    async def peek(self, queue: str) -> tuple[int, int]:
        """Returns a queue's numbers of messages and of consumers. Raises FAILURES."""
        # A separate channel is used, because the broker closes it if there is no such queue.
        beside = await self._connection.open_channel(self._timeout, confirms=False)
        try:
            found = await beside.request(QueueMethods.Declare(queue=queue, passive=True))
        finally:
            await beside.leave()
        return found.message_count or 0, found.consumer_count or 0

    async def leave(self) -> None:
        """Closes the channel; the broker takes unsettled messages back."""
        with contextlib.suppress(*FAILURES), true_cancellation():
            await self.close(timeout=self._timeout)

    def _take(self, frame: object) -> bool:
        """Returns whether a frame took the fast path. It never raises, because an error would end
        the reader of the connection."""
        if isinstance(frame, ContentBody):
            self._content(frame.value)
            return True
        if isinstance(frame, Basic.GetEmpty):
            self.rpc_frames.put_nowait(frame)
            return True
        if not self._tapping:
            return False
        try:
            return self._tapped(frame)
        except Exception:
            _logger.exception("a frame of rabbitmq could not be handled")
            return True

    def _tapped(self, frame: object) -> bool:
        match frame:
            case Basic.Ack():
                self.on_confirm(frame.delivery_tag or 0, frame.multiple, True)
            case Basic.Nack():
                self.on_confirm(frame.delivery_tag or 0, frame.multiple, False)
            case Basic.QosOk():
                self.on_prefetch_set()
            case Basic.Cancel():
                self.on_cancel(frame.consumer_tag or "")
                return False
            case Methods.Close():
                self.closed_by_broker = frame.reply_code or 0, frame.reply_text or ""
                return False
            case _:
                return False
        return True

    def _content(self, data: bytes) -> None:
        """Handles a method with content, its header, or a part of its body, in this order."""
        if self._method is None:
            self._method = data
            return
        if self._properties is None:
            self._missing, self._properties = reading.properties(data)
        else:
            self._pieces.append(data)
            self._missing -= len(data)
        if self._missing > 0:
            return
        method, properties, pieces = self._method, self._properties, self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._method, self._properties, self._pieces = None, None, []
        try:
            self._whole(method, properties, body)
        except Exception:
            # The message stays unsettled: the broker redelivers it when this channel closes.
            _logger.exception("a message from rabbitmq could not be taken")

    def _whole(self, method: bytes, properties: Properties, body: bytes) -> None:
        kind = method[:4]
        if kind == reading.DELIVER:
            self.on_deliver(reading.handed(method), properties, body)
        elif kind == reading.GOT:
            self._got = reading.got(method), properties, body
            self.rpc_frames.put_nowait(Basic.GetOk())
        else:
            self.on_return(reading.returned(method), properties)


class _Tap(asyncio.Queue[Any]):  # Any: pairs of weight and frame in aiormq
    """The queue of frames between connection and channel; the fast path takes some frames out."""

    def __init__(self, take: Callable[[object], bool]) -> None:
        super().__init__()
        self._take = take

    async def put(self, item: Any) -> None:
        if not self._take(item[1]):
            await super().put(item)


@contextlib.contextmanager
def true_cancellation() -> Iterator[None]:
    """Raises CancelledError if, and only if, this task was cancelled.

    On a lost connection, aiormq fails its waiters with CancelledError or a plain Exception. And
    `asyncio.wait_for` in aiormq loses a cancellation that arrives together with the result.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except asyncio.CancelledError:
        raise ConnectionError("the connection was lost") from None
    except Exception as error:
        if type(error) is Exception:
            raise ConnectionError("the connection was lost") from error
        raise
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


def _ignore(*_: object) -> None:
    pass
