"""How each broker ends what a subscription receives through, while the connection lives.

A client library is imported with the first use: suites of one transport need no other's.
"""

from __future__ import annotations

import json
from typing import Any


async def end_sqlite(subscription: Any) -> None:
    """Others end the session, as those of a process that slept longer than its lease."""
    from protoflow.transports.sqlite import sessions

    lease, database = subscription.session_lease, subscription._database
    id, now = lease.session.id, database.clock.now()
    await database.worker.call(lambda connection: sessions.end(connection, id, now, expired=True))


async def end_postgresql(subscription: Any) -> None:
    """Others end the membership, as that of a process that slept longer than its lease."""
    from protoflow.transports.postgresql import members

    database, member = subscription._database, subscription.membership.id
    await database.fetch("UPDATE {s}.members SET until = 0 WHERE id = $1", member)
    await members.end_expired(database)


async def end_kafka(subscription: Any) -> None:
    """The coordinator removes the member, as an operator's command can."""
    from aiokafka.protocol.group import LeaveGroupRequest

    coordinator = subscription._membership._consumer._coordinator
    request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
    await coordinator._send_req(request)


async def end_rabbitmq(subscription: Any) -> None:
    """The server ends the channels, for a tag that it never gave out."""
    from protoflow.transports.rabbitmq import frames

    channels = [subscription._session.channel]
    if (locks := subscription._consumers._locks) is not None:
        channels.append(locks._channel)
    for channel in channels:
        channel.send(frames.ack(channel.number, 1 << 40))


async def end_jetstream(subscription: Any) -> None:
    """The server gives the pin to another client; without one, it ends what was asked for as
    it does when a consumer's leader moves."""
    client = subscription._connection.client
    for puller in subscription.pullers:
        if puller.pin_timeout:
            subject = f"{puller.api}.CONSUMER.UNPIN.{puller.stream}.{puller.consumer}"
            await client.request(subject, json.dumps({"group": "protoflow"}).encode())
        else:
            headers = {"Status": "409", "Description": "Leadership Change"}
            await client.publish(puller._inbox, b"", headers=headers)


async def end_redis(subscription: Any) -> None:
    """The leases of all that it holds end, as those of a process that slept longer."""
    from protoflow.transports.redis.scripts import RENEW
    from protoflow.transports.redis.topics import MODES

    mode = MODES[subscription.settings.ordering]
    for shard in range(len(subscription.streams)):
        await subscription._call(RENEW, shard, mode, 0, 0)


async def end_sqs(subscription: Any) -> None:
    """It knows that its leases have ended, and then all that it held is visible to others."""
    held = [*subscription.leases.held.values()]
    claims = [delivery.receipt for delivery in held]
    subscription.lose(held)
    for claim in claims:
        await subscription._client.hide(claim.queue, [claim.handle], 0)


async def end_file(subscription: Any) -> None:
    """Another member finds that its lease has ended."""
    await subscription.end_session()
