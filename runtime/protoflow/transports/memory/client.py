"""The use of a broker by a transport: publish within limits, and settle."""

from __future__ import annotations

from collections.abc import Sequence

from protoflow.clock import Clock
from protoflow.error_codes import NO_SUBSCRIBER
from protoflow.errors import PublishError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transports.memory.broker import Broker, MemoryOptions
from protoflow.transports.memory.group import Entry, Group


class BrokerClient:
    """A broker, with the settings of one transport."""

    def __init__(self, clock: Clock, options: MemoryOptions, *, require_subscriber: bool) -> None:
        self.clock = clock
        self.options = options
        self.broker = Broker()
        self.require_subscriber = require_subscriber

    def settle(self, settlements: Sequence[Settlement]) -> list[SettleResult]:
        """Settles; each settlement is done completely or not at all."""
        now = self.clock.now()
        groups: dict[Group, None] = {}
        results: list[SettleResult] = []
        with self.broker.lock:
            for settlement in settlements:
                delivery = settlement.delivery
                entry = delivery.receipt
                if (
                    settlement.action is Action.ACK
                    and not settlement.outputs
                    and not settlement.others
                    and entry.__class__ is Entry
                    and entry.delivery is delivery
                ):  # this is the usual case; the code below gives the same result at twice the cost
                    delivery.receipt = Action.ACK
                    groups[entry.group] = None
                    entry.group.finish(entry)
                    results.append(SettleResult.DONE)
                    continue
                if (result := check(settlement)) is not None:
                    results.append(result)
                    continue
                outputs = settlement.outputs
                sizes: list[int] = []
                if outputs and any(self.admit(outputs, sizes, bounded=False)):
                    results.append(SettleResult.REFUSED)
                    continue
                groups[settlement.delivery.receipt.group] = None
                _settle(settlement, now)
                if outputs:
                    self.broker.publish(outputs, self.options, now, sizes)
                results.append(SettleResult.DONE)
            for group in groups:
                if group.has_returned:
                    group.wake()
        return results

    def admit(
        self, messages: Sequence[Message], sizes: list[int], *, bounded: bool
    ) -> list[PublishError | None]:
        """Returns the reasons why messages are refused; see `Broker.admit`."""
        if not self.require_subscriber:
            return self.broker.admit(messages, self.options, sizes, bounded=bounded)
        errors: list[PublishError | None] = []
        for message in messages:
            topic = self.broker.topic(message.topic)
            if topic.groups or topic.dead_letters is not None:
                errors += self.broker.admit([message], self.options, sizes, bounded=bounded)
            else:
                errors.append(
                    PublishError(
                        f"no group consumes {message.topic}, and require_subscriber is set",
                        code=NO_SUBSCRIBER,
                    )
                )
        return errors


def is_held(delivery: Delivery) -> bool:
    """Returns whether this delivery may still settle its message."""
    return isinstance(delivery.receipt, Entry) and delivery.receipt.delivery is delivery


def check(settlement: Settlement) -> SettleResult | None:
    """Returns the result of a settlement without its outputs; None if it can be done."""
    delivery = settlement.delivery
    entry = delivery.receipt
    if entry.__class__ is not Entry or entry.delivery is not delivery:
        return SettleResult.DONE if entry is settlement.action else SettleResult.LOST
    if settlement.others and not all(map(is_held, settlement.others)):
        return SettleResult.LOST
    return None


def _settle(settlement: Settlement, now: float) -> None:
    """Settles held deliveries without their outputs. The receipt of a settled delivery becomes the
    action, so that a repetition gets the same answer."""
    delivery, action = settlement.delivery, settlement.action
    entry: Entry = delivery.receipt
    delivery.receipt = action
    if action is Action.ACK:
        entry.group.finish(entry)
        for other in settlement.others:
            if is_held(other):  # another one, or named twice
                other.receipt.group.finish(other.receipt)
                other.receipt = action
        return
    entry.failures = settlement.failures
    entry.first_failure = settlement.first_failure
    if action is Action.RELEASE:
        entry.deliveries -= 1
        entry.group.give_back(entry, 0.0)
    else:
        entry.group.give_back(entry, now + settlement.delay if settlement.delay > 0 else 0.0)
