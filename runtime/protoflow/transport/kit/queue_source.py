"""The functions of a queue broker for one subscription."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

from protoflow.dataclass_record import dataclass_record
from protoflow.message import Delivery, Message, Settlement, SettleResult

Results = Sequence[SettleResult]
Fetch = Callable[[int, int], Awaitable[Sequence[Delivery]]]
Settle = Callable[[Sequence[Settlement]], Awaitable[Results]]
Renew = Callable[[Sequence[Delivery]], Awaitable[Collection[Delivery]]]
Defer = Callable[[Message, float], Message | None]
Available = Callable[[], Awaitable[int | None]]


@dataclass_record
class QueueSource:
    """The functions that a transport gives to `queue_subscription`.

    Each may be a coroutine function or return a future. A TransportError that it raises makes
    the runtime repeat the call later.

    Attributes:
        fetch: claims up to this many messages and, without the first, this many bytes. It returns
            immediately, even if the queue is empty. Each delivery has a hashable receipt, which
            differs from that of every other claim that this process holds.
        settle: settles deliveries that this process holds, and returns one answer for each, in
            order. ACK removes the message. NACK and RELEASE make it available again: NACK after
            `Settlement.delay` and with the failure count, RELEASE as if it had not been claimed.
            The answer is LOST if another process may hold the message. An exception means UNKNOWN
            for all: the runtime repeats the call.
        renew: extends leases, and returns the deliveries that are no longer held. It is called
            every third of a lease, even while nothing is held. None if leases do not expire.
        poll: seconds before an empty queue is checked again; None means only after `wake`.
        lease: the duration of a lease in seconds; None means that of the subscription's settings.
        expires: whether a delivery that could not be renewed is lost after `lease`. False if only
            `renew` and `settle` can report the loss.
        defer: see `Subscription.defer`; None if `settle` keeps every wait.
        available: see `Availability`; None if it is unknown.
        shards: the shards from which `fetch` returns deliveries; `fetch` is not called while all of
            them are paused.
    """

    fetch: Fetch
    settle: Settle
    renew: Renew | None = None
    poll: float | None = 1.0
    lease: float | None = None
    expires: bool = True
    defer: Defer | None = None
    available: Available | None = None
    shards: frozenset[str | int] = frozenset((0,))
