"""Successful runs: outputs are published and confirmed, then messages are acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from protoflow.errors import PublishRefusedError, TransportError
from protoflow.message import Action, Message, Settlement, SettleResult
from protoflow.publishing.output_routes import OutputRoutes
from protoflow.publishing.submitter import refusal
from protoflow.scheduling.host import Host
from protoflow.scheduling.job import Job
from protoflow.scheduling.settler import Settler

_log = logging.getLogger("protoflow.handler")

#: Called with jobs whose outputs the broker refuses permanently.
Refused = Callable[[Sequence[Job], TransportError], None]


class Outputs:
    """Publishes the outputs of one subscription with, or before, its acknowledgements.

    Args:
        host: the engine.
        settler: publishes and settles.
        refused: called with jobs whose outputs are refused for good.
    """

    def __init__(self, host: Host, settler: Settler, refused: Refused) -> None:
        self._host = host
        self._settler = settler
        self._refused = refused
        self._routes = settler.routes
        #: Jobs whose outputs are not confirmed yet, with the jobs that depend on them.
        self.publishing: dict[Job, Sequence[Job]] = {}

    def done(self, jobs: Sequence[Job], outputs: Sequence[Message]) -> None:
        """Acknowledges the jobs of one run when their outputs are confirmed."""
        first = jobs[0]
        spec = first.route.spec
        if not outputs:
            spec.stats.handled += len(jobs)
            self._acknowledge_together(jobs)
        elif self._routes is not None and (name := self._routes.elsewhere(outputs)) is not None:
            self._done_elsewhere(jobs, outputs, name, self._routes)
        elif (problem := refusal(outputs, spec.capabilities)) is not None:
            self._refused(jobs, problem)
        elif spec.capabilities.atomic:
            self._done_atomically(jobs, outputs)
        else:
            self._done_in_turn(jobs, outputs)

    def acknowledge(self, job: Job) -> None:
        """Acknowledges jobs that have no outputs."""
        self._settler.settle(job, Settlement(job.delivery))
        if job.lane is not None:
            self._host.end_turn(job)

    def _acknowledge_together(self, jobs: Sequence[Job]) -> None:
        """Acknowledges the jobs of one run."""
        self._settler.settle_together(jobs, [Settlement(job.delivery) for job in jobs])
        for job in jobs:
            if job.lane is not None:
                self._host.end_turn(job)

    def take(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Removes the selected jobs with unconfirmed outputs, and the jobs that depend on them."""
        taken: list[Job] = []
        for first in [job for job in self.publishing if wanted(job)]:
            taken += [first, *self.publishing.pop(first)]
        return taken

    def _done_elsewhere(
        self, jobs: Sequence[Job], outputs: Sequence[Message], name: str, routes: OutputRoutes
    ) -> None:
        """Publishes outputs of which some go to another transport."""
        problem = routes.refusal(outputs)
        if jobs[0].route.spec.policy.atomic:
            problem = PublishRefusedError(
                f"the handler is `atomic` on the transport {routes.own}, but an output goes to "
                f"{name}; leave `atomic` unset, or put the topic on {routes.own}"
            )
        if problem is not None:
            self._refused(jobs, problem)
        else:
            self._done_in_turn(jobs, outputs)

    def _done_in_turn(self, jobs: Sequence[Job], outputs: Sequence[Message]) -> None:
        """Publishes, waits for the confirmation, and settles."""
        first, *others = jobs
        self.publishing[first] = others

        def confirmed(refused: PublishRefusedError | None) -> None:
            if self.publishing.pop(first, None) is None:
                # the job was removed, because this process may no longer settle its messages
                return
            if refused is not None:
                self._refused(jobs, refused)
                return
            self._confirmed(jobs, outputs)
            self._acknowledge_together(jobs)

        self._settler.publish(first, outputs, confirmed)

    def _done_atomically(self, jobs: Sequence[Job], outputs: Sequence[Message]) -> None:
        """Publishes and settles in one transaction: all of the run, or nothing."""
        first, *others = jobs
        spec = first.route.spec
        self.publishing[first] = others

        def settled(result: SettleResult) -> bool:
            if result is SettleResult.UNKNOWN:
                return False  # the settler repeats it
            first.after = None
            if self.publishing.pop(first, None) is None:
                return True
            if result is SettleResult.REFUSED:
                self._refused(jobs, PublishRefusedError("the transport refused the outputs"))
                return True
            done = result is SettleResult.DONE
            if done:
                spec.stats.sent.add(outputs)  # a settlement has published them, not a submitter
                self._confirmed(jobs, outputs)
                self._host.settled_with(others)
            elif others:
                # One message was lost, so nothing was settled: give back the held messages.
                for job in jobs:
                    self._settler.settle(job, _release(job))
            for job in jobs:
                if job.lane is not None:
                    self._host.end_turn(job)
            return bool(others) and not done

        first.after = settled
        deliveries = [job.delivery for job in others]
        settlement = Settlement(first.delivery, outputs=outputs, others=deliveries)
        self._settler.settle(first, settlement)

    def _confirmed(self, jobs: Sequence[Job], outputs: Sequence[Message]) -> None:
        stats = jobs[0].route.spec.stats
        stats.handled += len(jobs)
        stats.confirmed(outputs)
        for job in jobs:
            if job.confirmed is not None:
                try:
                    job.confirmed()
                except Exception as error:  # an error in a callback does not undo the run
                    _log.error(
                        "a callback on confirmation failed",
                        extra={"handler": job.route.spec.name, "error": type(error).__name__},
                    )


def _release(job: Job) -> Settlement:
    delivery = job.delivery
    return Settlement(delivery, Action.RELEASE, 0.0, delivery.failures, delivery.first_failure)
