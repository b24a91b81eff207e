"""Handlers and subscriptions as known at start: names filled, policies resolved."""

from __future__ import annotations

from collections.abc import Mapping

from protoflow.config.named_transports import DEFAULT
from protoflow.contract.policy import ResolvedDelivery
from protoflow.contract.topic_source import TopicSource
from protoflow.dataclass_record import dataclass_record
from protoflow.registrations.registration import Registration
from protoflow.transport.interface import SubscriptionSettings


@dataclass_record
class HandlerPlan:
    """A handler with the values that are only known at start.

    Attributes:
        registration: the handler and its contract.
        topic: the consumed topic, with the namespace.
        group: the consumer group, with the namespace.
        policy: the delivery policy.
        dead_letter_topic: the topic of dead letters, with the namespace.
        transport: the name of the transport from which it consumes.
        source: the existing place from which it consumes the topic; None: the topic itself.
    """

    registration: Registration
    topic: str
    group: str
    policy: ResolvedDelivery
    dead_letter_topic: str
    transport: str = DEFAULT
    source: TopicSource | None = None


@dataclass_record
class SubscriptionPlan:
    """A topic that a group reads, and its handlers by message type ("" is every type)."""

    settings: SubscriptionSettings
    handlers: tuple[HandlerPlan, ...]
    routes: Mapping[str, HandlerPlan]

    @property
    def policy(self) -> ResolvedDelivery:
        """The policy; its shared values hold for the whole subscription."""
        return self.handlers[0].policy
