"""aiokafka's consumers for subscriptions and scans."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.kafka.assignors import keep_retries_beside
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.options import Assignor

#: aiokafka leaves a group if its consumer is not polled for this long. Busy handlers stop the
#: polling, which must not end the membership.
_NEVER_IDLE: Final = 2**31 - 1
#: Seconds beyond the drain, for the commit and for joining again.
_JOINING: Final = 30.0
_ASSIGNORS: Final = {
    Assignor.ROUNDROBIN: RoundRobinPartitionAssignor,
    Assignor.RANGE: RangePartitionAssignor,
    Assignor.STICKY: StickyPartitionAssignor,
}
#: What other programs in the group of a source know. The group chooses an assignor that all its
#: members know, so it chooses ours when they have left.
_FOREIGN: Final = (RangePartitionAssignor, RoundRobinPartitionAssignor)


def group_consumer(
    planned: Sequence[SubscriptionSettings], context: KafkaContext, mains: Mapping[str, str]
) -> AIOKafkaConsumer:
    """Returns a member of a group, or for a broadcast a consumer without a group; not started.

    Args:
        planned: the planned subscriptions.
        context: the context of the transport.
        mains: the main topic of each retry topic; entries may be added later.
    """
    options = context.options
    if planned[0].broadcast:
        return AIOKafkaConsumer(**_reading(context), auto_offset_reset="latest")
    return AIOKafkaConsumer(
        **_reading(context),
        group_id=context.group_id(planned[0]),
        group_instance_id=options.group_instance_id,
        session_timeout_ms=int(options.session_timeout * 1000),
        heartbeat_interval_ms=int(options.heartbeat_interval * 1000),
        # aiokafka blocks in the revoke callback, so the other members must wait for the drain.
        rebalance_timeout_ms=int(rebalance_timeout(planned, context) * 1000),
        max_poll_interval_ms=_NEVER_IDLE,
        partition_assignment_strategy=(
            keep_retries_beside(_ASSIGNORS[options.assignor], mains),
            *(_FOREIGN if any(each.source is not None for each in planned) else ()),
        ),
        # The start of a group and the handling of a lost position never depend on a default.
        auto_offset_reset="none",
        enable_auto_commit=False,
    )


def free_consumer(context: KafkaContext) -> AIOKafkaConsumer:
    """Returns a consumer without a group, for reading topics; not yet started."""
    return AIOKafkaConsumer(**_reading(context), auto_offset_reset="earliest")


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stops a consumer in any case.

    aiokafka's fetcher swallows its cancellation while it waits, after a new assignment, for
    requests that it has cancelled itself; `stop` would then wait for it for ever.
    """
    fetching = getattr(getattr(consumer, "_fetcher", None), "_fetch_task", None)
    while fetching is not None and not fetching.done():
        fetching.cancel()
        await asyncio.wait([fetching], timeout=0.1)
    await consumer.stop()


async def abandon(consumer: AIOKafkaConsumer) -> None:
    """Ends a consumer immediately, without a request to the broker."""
    coordinator: Any = getattr(consumer, "_coordinator", None)
    fetcher: Any = getattr(consumer, "_fetcher", None)
    tasks = [
        getattr(fetcher, "_fetch_task", None),
        *getattr(fetcher, "_pending_tasks", ()),
        *(
            getattr(coordinator, name, None)
            for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task")
        ),
    ]
    consumer._closed = True  # otherwise it logs a warning when it is collected
    running = [task for task in tasks if task is not None and not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=0.5)
    with contextlib.suppress(Exception):  # it is abandoned in any case
        await consumer._client.close()


def rebalance_timeout(planned: Sequence[SubscriptionSettings], context: KafkaContext) -> float:
    """Returns how long the group waits for draining members."""
    drain = max(settings.rebalance_drain for settings in planned)
    return max(context.options.rebalance_timeout or 0.0, drain + _JOINING)


def group_joining_timeout(planned: Sequence[SubscriptionSettings], context: KafkaContext) -> float:
    """Returns how long joining may take, which includes the drain of the other members."""
    return context.settings.connect_timeout + rebalance_timeout(planned, context)


def _reading(context: KafkaContext) -> dict[str, Any]:
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
