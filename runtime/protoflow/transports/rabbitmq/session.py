"""One channel of a subscription: its unsettled deliveries and how they are settled.

RabbitMQ does not answer acknowledgements. So after each batch of them, a request with an answer is
sent: the answer shows that the broker has processed all earlier frames. If the channel closes
before, its deliveries are lost, and repetition cannot help.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence

from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.transports.rabbitmq import frames
from protoflow.transports.rabbitmq.channel import Channel

Results = asyncio.Future[Sequence[SettleResult]]
#: Takes a delivery that must be handed out again.
HandOut = Callable[[Delivery], None]


class Receipt:
    """The receipt of a delivery: the session and the tag within it.

    Attributes:
        since: the time of arrival.
        handed: whether it was handed out to the scheduler.
        token: in a solo queue, the identity of this publication.
        marks: the number of its start marks there.
    """

    __slots__ = ("handed", "marks", "session", "since", "tag", "token")

    def __init__(self, session: Session, tag: int, since: float) -> None:
        self.session = session
        self.tag = tag
        self.since = since
        self.handed = False
        self.token = ""
        self.marks = 0


class Session:
    """The deliveries of one channel.

    Args:
        channel: the channel.
        prefetch: the number of deliveries that the broker sends in advance.

    Attributes:
        channel: the channel.
        unsettled: the deliveries by their tags, ascending.
        arrivals: the number of deliveries so far.
    """

    def __init__(self, channel: Channel, prefetch: int) -> None:
        self.channel = channel
        self.unsettled: dict[int, Delivery] = {}
        self.arrivals = 0
        self._loop = asyncio.get_running_loop()
        self._barrier = frames.prefetch(channel.number, prefetch)
        self._acked: list[int] = []
        self._requeued: list[int] = []
        self._flushing = False
        self._uncovered: list[tuple[Results, list[SettleResult]]] = []
        self._covered: list[tuple[Results, list[SettleResult]]] | None = None
        channel.on_prefetch_set = self._answered
        channel.closing.add_done_callback(self._closed)

    def arrived(self, delivery: Delivery, tag: int) -> None:
        """Records a delivery."""
        self.arrivals += 1
        delivery.receipt = Receipt(self, tag, self._loop.time())
        self.unsettled[tag] = delivery

    def holds(self, delivery: Delivery) -> bool:
        """Whether a delivery came on this channel and is unsettled."""
        receipt: Receipt = delivery.receipt
        return receipt.session is self and self.unsettled.get(receipt.tag) is delivery

    def settle(self, settlements: Sequence[Settlement], hand_out: HandOut) -> Results:
        """Settles deliveries of this channel; all others are lost.

        Results are set when the broker has processed them. A message to retry is not sent back: the
        broker would put it behind others, count it, and probably deliver it to this process again.
        """
        future: Results = self._loop.create_future()
        results = [self._settle(settlement, hand_out) for settlement in settlements]
        if SettleResult.DONE in results:
            self.resolve(future, results)
        else:
            future.set_result(results)
        return future

    def _settle(self, settlement: Settlement, hand_out: HandOut) -> SettleResult:
        delivery = settlement.delivery
        if not self.holds(delivery):
            return SettleResult.LOST
        receipt: Receipt = delivery.receipt
        if settlement.action is Action.ACK:
            self.ack(receipt.tag)
            return SettleResult.DONE
        # A new delivery of the same message, so that the old one is settled.
        failed = settlement.action is Action.NACK
        receipt.handed = False
        renewed = dataclasses.replace(
            delivery,
            deliveries=delivery.deliveries + (failed and delivery.deliveries > 0),
            failures=settlement.failures,
            first_failure=settlement.first_failure,
        )
        self.unsettled[receipt.tag] = renewed
        if failed and settlement.delay > 0:
            # Only without a ladder: the delivery waits here, unsettled.
            self._loop.call_later(settlement.delay, self._hand_out_late, renewed, hand_out)
        else:
            hand_out(renewed)
        return SettleResult.DONE

    def _hand_out_late(self, delivery: Delivery, hand_out: HandOut) -> None:
        if self.holds(delivery):
            hand_out(delivery)

    def ack(self, tag: int) -> None:
        """Acknowledges with the next flush."""
        del self.unsettled[tag]
        self._acked.append(tag)
        self._schedule()

    def requeue(self, tag: int) -> None:
        """Gives back with the next flush."""
        del self.unsettled[tag]
        self._requeued.append(tag)
        self._schedule()

    def requeue_all(self) -> None:
        """Gives back all unsettled deliveries, in any order."""
        if self.unsettled and not self.channel.is_closed:
            self._flush()
            self.channel.send(frames.requeue(self.channel.number, 0, multiple=True))
            self.unsettled.clear()

    def resolve(self, future: Results, results: list[SettleResult]) -> None:
        """Sets the results once the broker has processed all settlements so far."""
        if self.channel.is_closed:
            _finish([(future, results)], known=False)
            return
        self._uncovered.append((future, results))
        self._schedule()

    async def settled(self) -> SettleResult:
        """Waits until the broker has processed everything; LOST if the channel closes."""
        future: Results = self._loop.create_future()
        self.resolve(future, [SettleResult.DONE])
        return (await future)[0]

    def _schedule(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self.channel.is_closed:
            return  # `_closed` has answered everything, or will do so
        parts = [frames.requeue(self.channel.number, tag) for tag in self._requeued]
        self._requeued.clear()
        if self._acked:
            parts += self._acks()
        if self._uncovered and self._covered is None:
            self._covered, self._uncovered = self._uncovered, []
            parts.append(self._barrier)
        if parts:
            self.channel.send(b"".join(parts))

    def _acks(self) -> list[bytes]:
        """Returns one frame for all tags below the first unsettled one, and one for each other
        tag."""
        number, acked, self._acked = self.channel.number, self._acked, []
        first = next(iter(self.unsettled), None)
        if first is None:
            return [frames.ack(number, max(acked), multiple=True)]
        below = [tag for tag in acked if tag < first]
        parts = [frames.ack(number, tag) for tag in acked if tag > first]
        if below:
            parts.append(frames.ack(number, max(below), multiple=True))
        return parts

    def _answered(self) -> None:
        if self._covered is not None:
            _finish(self._covered, known=True)
            self._covered = None
        if self._uncovered:
            self._schedule()

    def _closed(self, _: asyncio.Future[None]) -> None:
        waiting = [*(self._covered or ()), *self._uncovered]
        self._covered, self._uncovered = None, []
        _finish(waiting, known=False)


def _finish(waiting: list[tuple[Results, list[SettleResult]]], *, known: bool) -> None:
    for future, results in waiting:
        if not future.done():
            if not known:
                results = [SettleResult.LOST] * len(results)
            future.set_result(results)
