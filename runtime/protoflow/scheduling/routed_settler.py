"""Settling of a subscription whose outputs go to several transports.

Each transport has a settler of its own, so one that does not answer holds up only the messages that
have outputs there. A message is settled when all its outputs are confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protoflow.errors import PublishRefusedError
from protoflow.message import Message, SettleResult
from protoflow.publishing.output_routes import OutputRoutes
from protoflow.publishing.submitter import Submitter
from protoflow.scheduling.job import Job
from protoflow.scheduling.settler import Confirmed, Settler
from protoflow.transport.interface import Subscription

_Settled = Callable[[Sequence[Job], Sequence[SettleResult]], None]
_Failed = Callable[[Job, Exception], None]


class RoutedSettler(Settler):
    """Publishes to several transports, and settles on one.

    Args:
        routes: divides outputs by transport.
        subscription: settles.
        settled, failed: see `Settler`.
    """

    def __init__(
        self,
        routes: OutputRoutes,
        subscription: Subscription,
        settled: _Settled,
        failed: _Failed,
    ) -> None:
        super().__init__(routes.submitters[routes.own], subscription, settled, failed)
        self.routes = routes
        self._own = routes.own
        self._shares = routes.shares
        self._others = {
            name: Settler(submitter, subscription, settled, failed)
            for name, submitter in routes.submitters.items()
            if name != routes.own
        }

    def publish(self, job: Job, messages: Sequence[Message], confirmed: Confirmed) -> None:
        """Publishes the outputs of a job to their transports."""
        shares = self._shares(messages)
        answered = confirmed if len(shares) == 1 else _all_of(len(shares), confirmed)
        for name, share in shares.items():
            if name in self._others:
                self._others[name].publish(job, share, answered)
            else:
                super().publish(job, share, answered)

    def publish_retry(self, job: Job, message: Message, confirmed: Confirmed) -> None:
        """Publishes a retry on the transport of its message."""
        super().publish(job, (message,), confirmed)

    def suspend(self) -> None:
        """Keeps new entries until `resume`."""
        for settler in self._others.values():
            settler.suspend()
        super().suspend()

    def resume(self) -> None:
        """Ends `suspend`."""
        for settler in self._others.values():
            settler.resume()
        super().resume()

    @property
    def busy(self) -> bool:
        """Whether an answer of a broker is awaited, or an entry must be repeated."""
        return self._unfinished or any(settler.busy for settler in self._others.values())

    def problem(self, patience: float) -> str | None:
        """Describes what the brokers have not confirmed, with the names of their transports."""
        named = ((name, settler.problem(patience)) for name, settler in self._others.items())
        found = [(self._own, super().problem(patience)), *named]
        return "; ".join(f"transport {name}: {text}" for name, text in found if text) or None

    def take(self, wanted: Callable[[Job], bool]) -> tuple[list[Job], list[Job]]:
        """Stops repeating entries of these jobs. See `Settler`."""
        outputs, settlements = super().take(wanted)
        for settler in self._others.values():
            outputs += settler.take(wanted)[0]
        return outputs, settlements

    async def drained(self) -> None:
        """Waits until every entry is answered and none must be repeated."""
        while self.busy:
            for settler in self._others.values():
                await settler.drained()
            await super().drained()

    async def settlements_drained(self) -> None:
        """Waits until the settlements are answered; outputs on other transports do not matter."""
        await super().drained()


def settler_for(
    routes: OutputRoutes | None,
    submitter: Submitter,
    subscription: Subscription,
    settled: _Settled,
    failed: _Failed,
) -> Settler:
    """Returns the settler of a subscription; `routes` is None if there is one transport."""
    if routes is None:
        return Settler(submitter, subscription, settled, failed)
    return RoutedSettler(routes, subscription, settled, failed)


def _all_of(count: int, confirmed: Confirmed) -> Confirmed:
    """Returns a callback for the shares of one job: the last one reports a refusal, if any."""
    results: list[PublishRefusedError | None] = []

    def answered(refused: PublishRefusedError | None) -> None:
        results.append(refused)
        if len(results) == count:
            confirmed(next((error for error in results if error is not None), None))

    return answered
