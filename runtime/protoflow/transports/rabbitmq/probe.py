"""Asks the server about queues, on separate channels."""

from __future__ import annotations

import aiormq.exceptions
from pamqp.commands import Queue as Methods

from protoflow.errors import TransportError
from protoflow.transports.rabbitmq.channel import FAILURES
from protoflow.transports.rabbitmq.link import Link, describe


async def count(link: Link, queue: str) -> int | None:
    """Returns the number of ready messages in a queue; None if there is no such queue."""
    found = await counts(link, queue)
    return None if found is None else found[0]


async def counts(link: Link, queue: str) -> tuple[int, int] | None:
    """Returns the numbers of ready messages and of consumers; None if there is no such queue."""
    try:
        channel = await link.channel(confirms=False)
        try:
            found = await channel.request(Methods.Declare(queue=queue, passive=True))
        finally:
            await channel.leave()
    except aiormq.exceptions.ChannelNotFoundEntity:
        return None
    except FAILURES as error:
        raise TransportError(f"queue {queue}: {describe(error)}") from error
    return found.message_count or 0, found.consumer_count or 0
