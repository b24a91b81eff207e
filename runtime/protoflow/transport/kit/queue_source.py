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
        fetch: claims up to so many messages and, in all but the first, so many bytes. It returns
            at once, with nothing from an empty queue. Each delivery has a receipt that can be
            hashed and differs from that of every other claim that is held here.
        settle: settles what is held here; one answer each, in order. ACK removes the message;
            NACK and RELEASE make it free again: NACK after `Settlement.delay` and with the
            failures to be kept, RELEASE as if it had not been claimed. LOST for what others may
            hold by now. An exception stands for UNKNOWN for each: the runtime repeats it.
        renew: extends leases, and returns the deliveries that are not held any more. It is called
            every third of a lease, also while nothing is held. None: the broker lends without
            a limit.
        poll: seconds before an empty queue is looked at again; None: only after `wake`.
        lease: seconds that a lease lasts; None is what the subscription's settings say.
        expires: whether what could not be renewed is lost after `lease`. False: only `renew` and
            `settle` know, for nobody else can take it before the broker says so.
        defer: see `Subscription.defer`; None: `settle` keeps every wait.
        available: see `Availability`; None: it is unknown.
        shards: the shards of what `fetch` returns; it is called unless all of them are paused.
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
