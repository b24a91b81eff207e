"""How the deliveries of a subscription's own channel are settled."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence

from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.transports.rabbitmq.session import Receipt, Results, Session


class Settling:
    """Settles what the current session has handed out; all else is lost.

    Args:
        give_out: takes a delivery that is to be handed out again.

    Attributes:
        session: the current session.
    """

    def __init__(self, give_out: Callable[[Delivery], None]) -> None:
        self.session: Session | None = None
        self._give_out = give_out

    def settle(self, settlements: Sequence[Settlement]) -> Results:
        """Settles; results come when the broker has worked them off."""
        future: Results = asyncio.get_running_loop().create_future()
        results = [self._settle(settlement) for settlement in settlements]
        if self.session is not None and SettleResult.DONE in results:
            self.session.resolve(future, results)
        else:
            future.set_result(results)
        return future

    def _settle(self, settlement: Settlement) -> SettleResult:
        delivery = settlement.delivery
        receipt: Receipt = delivery.receipt
        session = receipt.session
        if session is not self.session or session.unsettled.get(receipt.tag) is not delivery:
            return SettleResult.LOST
        if settlement.action is Action.ACK:
            session.ack(receipt.tag)
            return SettleResult.DONE
        # A new delivery of the same hand-out, so that the old one is settled.
        failed = settlement.action is Action.NACK
        receipt.handed = False
        renewed = dataclasses.replace(
            delivery,
            deliveries=delivery.deliveries + (failed and delivery.deliveries > 0),
            failures=settlement.failures,
            first_failure=settlement.first_failure,
        )
        session.unsettled[receipt.tag] = renewed
        if failed and settlement.delay > 0:
            # Only where there is no ladder: the delivery waits here, unsettled.
            loop = asyncio.get_running_loop()
            loop.call_later(settlement.delay, self._give_back, renewed)
        else:
            self._give_back(renewed)
        return SettleResult.DONE

    def _give_back(self, delivery: Delivery) -> None:
        receipt: Receipt = delivery.receipt
        session = receipt.session
        if session is not self.session or session.unsettled.get(receipt.tag) is not delivery:
            return
        self._give_out(delivery)
