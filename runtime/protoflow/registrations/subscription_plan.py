"""What start-up knows of handlers and subscriptions: names filled, policies resolved."""

from __future__ import annotations

from collections.abc import Mapping

from protoflow.contract.policy import ResolvedDelivery
from protoflow.dataclass_record import dataclass_record
from protoflow.registrations.registration import Registration
from protoflow.transport.interface import SubscriptionSettings


@dataclass_record
class HandlerPlan:
    """One handler with everything that only start-up knows."""

    registration: Registration
    topic: str
    group: str
    policy: ResolvedDelivery
    dead_letter_topic: str


@dataclass_record
class SubscriptionPlan:
    """One topic read by one group, and its handlers by message type ("" is every type)."""

    settings: SubscriptionSettings
    handlers: tuple[HandlerPlan, ...]
    routes: Mapping[str, HandlerPlan]

    @property
    def policy(self) -> ResolvedDelivery:
        """The policy whose shared leaves hold for the whole subscription."""
        return self.handlers[0].policy
