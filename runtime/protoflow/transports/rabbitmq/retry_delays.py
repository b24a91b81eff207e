"""Retry delays: the queues in which failed messages of a group wait, and their selection.

Each rung of the ladder (`contract.retry_ladder`) has a queue with a constant time to live. After
the wait, the exchange `Names.back` routes the message to the queue of its group only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from protoflow.contract.retry_ladder import rung
from protoflow.message import Message
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.rabbitmq.context import SubscriptionContext
from protoflow.transports.rabbitmq.names import Names, milliseconds
from protoflow.transports.rabbitmq.topology import Queue, dead_lettering


def retry_queues(
    names: Names, settings: SubscriptionSettings, ladder: Sequence[float]
) -> Iterator[Queue]:
    """Returns a subscription's queues, one for each rung; none if the broker keeps no waits."""
    own = names.of(settings.topic, settings.group)
    for seconds in ladder if settings.needs_broker_retry else ():
        yield Queue(
            name=own.retry(seconds),
            arguments={
                "x-message-ttl": milliseconds(seconds),
                **dead_lettering(names.back, own.address),
            },
        )


def deferred(context: SubscriptionContext, message: Message, delay: float) -> Message | None:
    """Returns the message, addressed to its retry queue; see `Subscription.defer`."""
    settings, own = context.settings, context.own
    if settings.broadcast or not settings.needs_broker_retry:
        return None
    address = own.retry(rung(context.transport.ladder, delay)) if delay > 0 else own.address
    return dataclasses.replace(message, topic=address, delay=0.0, mandatory=True)
