"""The settings of a transport and of its subscriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from protoflow.clock import Clock
from protoflow.config.url import TransportURL
from protoflow.contract.spec import Ordering, Start
from protoflow.contract.topic_source import TopicSource, TopicSources
from protoflow.contract.topics import TopologyMode
from protoflow.dataclass_record import dataclass_record


@dataclass_record
class SubscriptionSettings:
    """One topic that one group consumes, with everything that a transport needs to know.

    Attributes:
        name: the name for logs and readiness, `<topic>/<group>`.
        topic: the topic, with the namespace.
        group: the group, with the namespace.
        ordering: which messages must be handled in order.
        concurrency: the highest number of simultaneous handlers in this process.
        max_in_flight: the highest number of unsettled deliveries in this process.
        max_in_flight_bytes: the same limit in bytes.
        start: the start of a group without a position.
        broadcast: whether this process has its own ephemeral group.
        atomic: whether outputs and settlement must become visible together.
        needs_broker_retry: whether the broker must keep some waits of failed runs (see
            `Subscription.defer`).
        dead_letter_topics: the topics of this group's dead letters, with the namespace.
        lease: seconds before an unrenewed delivery may go to another process.
        max_hold: the longest time, in seconds, for which a lease is renewed.
        rebalance_drain: seconds that handlers get when their shard moves.
        transport: the name of the transport that it is consumed from, for services with several.
        internal: whether Protoflow itself consumes it, and no handler does. A transport that
            receives requests opens nothing for it.
        source: the existing place that is consumed in place of the topic. Nothing is created or
            changed there; retries and dead letters are in places of the group. None: the topic.
    """

    name: str
    topic: str
    group: str
    ordering: Ordering = Ordering.NONE
    concurrency: int = 16
    max_in_flight: int = 256
    max_in_flight_bytes: int = 64 * 1024 * 1024
    start: Start = Start.EARLIEST
    broadcast: bool = False
    atomic: bool = False
    needs_broker_retry: bool = True
    dead_letter_topics: tuple[str, ...] = ()
    lease: float = 30.0
    max_hold: float = 3600.0
    rebalance_drain: float = 30.0
    transport: str = "default"
    internal: bool = False
    source: TopicSource | None = None


@dataclass_record
class Topology:
    """All topics and subscriptions of a service."""

    subscriptions: tuple[SubscriptionSettings, ...] = ()
    topics: tuple[str, ...] = ()


@dataclass_record
class TransportSettings:
    """What the runtime passes to a transport factory.

    Attributes:
        url: the URL of the broker.
        options: the transport options of the config; unknown names are refused.
        clock: the one source of time and randomness.
        client_name: the name of this process at the broker.
        connect_timeout: seconds after which an unreachable broker is an error at start.
        ladder: the constant waits, in seconds, of brokers that keep retries in queues.
        require_subscriber: whether publishing to a topic without a consumer is an error.
        on_lost_position: `stop`, `earliest` or `latest`, for a group whose position is lost.
        topology: whether a transport creates its own tables when it is opened.
        sources: the existing places that topics on this transport are consumed from.
    """

    url: TransportURL
    options: Mapping[str, Any] = field(default_factory=dict)  # Any: values come from TOML
    clock: Clock = field(default_factory=Clock)
    client_name: str = "protoflow"
    connect_timeout: float = 30.0
    ladder: tuple[float, ...] = (5.0, 30.0, 120.0, 600.0, 3600.0)
    require_subscriber: bool = False
    on_lost_position: str = "stop"
    topology: TopologyMode = TopologyMode.CREATE
    sources: TopicSources = field(default_factory=TopicSources)
