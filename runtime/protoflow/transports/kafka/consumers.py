"""aiokafka's consumers, as subscriptions and questions need them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from protoflow.transport import SubscriptionSettings
from protoflow.transports.kafka.context import Context
from protoflow.transports.kafka.options import Assignor

#: aiokafka leaves a group whose consumer was not asked for records for so long. Ours is not
#: asked while handlers are busy, which is no reason to leave: the reader is supervised here.
_NEVER_IDLE: Final = 2**31 - 1
#: Beyond the drain: to commit, and to join again.
_JOINING: Final = 30.0
_ASSIGNORS: Final = {
    Assignor.ROUNDROBIN: RoundRobinPartitionAssignor,
    Assignor.RANGE: RangePartitionAssignor,
    Assignor.STICKY: StickyPartitionAssignor,
}


def group_consumer(settings: SubscriptionSettings, context: Context) -> AIOKafkaConsumer:
    """A member of a group, or a consumer without one for broadcast; not yet started."""
    options = context.options
    if settings.broadcast:
        return AIOKafkaConsumer(**_reading(context), auto_offset_reset="latest")
    instance = options.group_instance_id
    return AIOKafkaConsumer(
        **_reading(context),
        group_id=settings.group,
        # One process has a member for each of its topics.
        group_instance_id=f"{instance}.{settings.topic}" if instance else None,
        session_timeout_ms=int(options.session_timeout * 1000),
        heartbeat_interval_ms=int(options.heartbeat_interval * 1000),
        # aiokafka blocks in the revoke callback: the others must wait for our drain.
        rebalance_timeout_ms=int(rebalance_timeout(settings, context) * 1000),
        max_poll_interval_ms=_NEVER_IDLE,
        partition_assignment_strategy=(_ASSIGNORS[options.assignor],),
        # Neither where a group starts nor what a lost position means is left to a default.
        auto_offset_reset="none",
        enable_auto_commit=False,
    )


def free_consumer(context: Context) -> AIOKafkaConsumer:
    """A consumer without group, for looking into topics; not yet started."""
    return AIOKafkaConsumer(**_reading(context), auto_offset_reset="earliest")


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stops a consumer for certain.

    aiokafka's fetcher swallows its cancellation while it waits, after a new assignment, for
    requests that it has cancelled itself; `stop` would then wait for it for ever.
    """
    fetching = getattr(getattr(consumer, "_fetcher", None), "_fetch_task", None)
    while fetching is not None and not fetching.done():
        fetching.cancel()
        await asyncio.wait([fetching], timeout=0.1)
    await consumer.stop()


def rebalance_timeout(settings: SubscriptionSettings, context: Context) -> float:
    """How long the group waits for members that drain."""
    return max(context.options.rebalance_timeout or 0.0, settings.rebalance_drain + _JOINING)


def group_joining_timeout(settings: SubscriptionSettings, context: Context) -> float:
    """How long joining may take: the other members drain first."""
    return context.settings.connect_timeout + rebalance_timeout(settings, context)


def _reading(context: Context) -> dict[str, Any]:
    options = context.options
    arguments = context.client | {
        "fetch_max_wait_ms": int(options.fetch_max_wait * 1000),
        "fetch_min_bytes": options.fetch_min_bytes,
        "fetch_max_bytes": options.fetch_max_bytes,
        "max_partition_fetch_bytes": options.max_partition_fetch_bytes,
        "check_crcs": options.check_crcs,
        "isolation_level": options.isolation_level.value,
    }
    if options.client_rack is not None:
        arguments["client_rack"] = options.client_rack
    return arguments
