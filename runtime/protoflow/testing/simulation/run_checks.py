"""The invariants of runs: their order, attempts, waits and leases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protoflow.context import Context
from protoflow.contract.spec import Ordering
from protoflow.errors import BatchFailed
from protoflow.message import Delivery, Message
from protoflow.outcomes import DeadLetter, Done, Outcome, Postpone, Retry, Skip
from protoflow.pipeline import HandlerSpec
from protoflow.scheduling.batching import BatchContext
from protoflow.testing.simulation.holds import EndedLease
from protoflow.testing.simulation.ledger import Ledger, Record, Run
from protoflow.testing.simulation.process import Process
from protoflow.testing.simulation.trace import Trace

#: Seconds by which a wait may seem too short, because clocks are read at different moments.
_CLOSE = 0.01
#: The part of a lease by which its end may be noticed late: processes check it at intervals.
_LATE = 0.5


class RunChecks:
    """Checks the runs of handlers, and keeps a ledger for each group.

    Args:
        now: returns the virtual time.
        trace: gets an event for each run.
        fail: called with the name of an invariant, the violation, and the id of the message.
        holds: returns whether a delivery is still lent to its process.
        ended: returns the lease of a delivery, if it has ended.
    """

    def __init__(
        self, now: Callable[[], float], trace: Trace, fail: Callable[[str, str, str], None],
        holds: Callable[[Delivery], bool], ended: Callable[[Delivery], EndedLease | None],
    ) -> None:  # fmt: skip
        self.runs: list[Run] = []
        self.stored_ids: dict[str, Message] = {}
        self.ledgers: dict[tuple[str, str], Ledger] = {}
        self._now = now
        self._trace = trace
        self._fail = fail
        self._holds = holds
        self._ended = ended
        self.by_topic: dict[str, list[Ledger]] = {}
        self.failed_outputs: dict[str, str] = {}
        self.dead_letters: list[Message] = []
        self._lost: dict[Delivery, float] = {}

    def ledger(self, topic: str, group: str) -> Ledger:
        """Returns the ledger of a group."""
        found = self.ledgers.get((topic, group))
        if found is None:
            found = self.ledgers[topic, group] = Ledger(topic, group)
            self.by_topic.setdefault(topic, []).append(found)
        return found

    def consumes(self, spec: HandlerSpec) -> None:
        """Notes that a handler consumes a topic."""
        ledger = self.ledger(spec.topic, spec.group)
        ledger.spec = spec
        if spec.message is not None:
            ledger.types |= dict.fromkeys((spec.message.type, *spec.message.aliases))

    def disturb(self, topic: str, group: str) -> None:
        """Notes an event that may repeat runs of a group."""
        self.ledger(topic, group).disturbances += 1

    def disturb_all(self) -> None:
        """Notes an event that may repeat runs of every group."""
        for ledger in self.ledgers.values():
            ledger.disturbances += 1

    def died(self, process: Process) -> None:
        """Notes that a process was killed."""
        for ledger in self.ledgers.values():
            for run in [run for run in ledger.running if run.process is process]:
                del ledger.running[run]
                ledger.records[run.message].deaths += 1
            ledger.disturbances += 1

    def lost(self, process: Process, deliveries: Sequence[Delivery]) -> None:
        """Notes that a process lost the leases of deliveries."""
        for delivery in deliveries:
            self._lost[delivery] = self._now()
            self._trace.add(self._now(), str(process), "lease lost", delivery.message.id)

    def began(self, process: Process, spec: HandlerSpec, context: Context) -> list[Run]:
        """Notes and checks the start of a run."""
        ledger = self.ledger(spec.topic, spec.group)
        runs = [self._began(process, spec, ledger, item) for item in items_of(context)]
        running = sum(run.process is process for run in ledger.running)
        if not spec.batched and running > spec.policy.concurrency:
            self._fail("concurrency", f"{running} runs of {spec.name} at once", runs[0].message)
        return runs

    def _began(self, process: Process, spec: HandlerSpec, ledger: Ledger, context: Context) -> Run:
        run = Run(
            spec.name, context.id, context.message.key, context.attempt, process,
            context.delivery, self._now(),
        )  # fmt: skip
        self._trace.add(self._now(), str(process), "run", run.message, f"attempt {run.attempt}")
        if run.message not in ledger.records:
            ledger.owe(run.message, run.key)
        record = ledger.records[run.message]
        self._check_attempt(run, spec, ledger, record)
        if ledger.per_key and run.key and self._holds(run.delivery):
            self._check_order(run, ledger, record)
        elif ledger.per_key and (ended := self._ended(run.delivery)) is not None:
            self._check_start(run, ended)
        ledger.running[run] = None
        self.runs.append(run)
        return run

    def _check_attempt(self, run: Run, spec: HandlerSpec, ledger: Ledger, record: Record) -> None:
        most = spec.policy.retry.max_attempts
        if run.attempt > most:
            self._fail(
                "attempts", f"run {run.attempt} of {spec.name}, max_attempts is {most}", run.message
            )
        disturbed = record.disturbances != ledger.disturbances
        if disturbed and record.retries > 0:
            # the message and its stored retry are both delivered, each with a count of its own
            record.copies += 1
        if disturbed or record.copies > 1:
            return
        if run.attempt != record.next_attempt:
            self._fail(
                "attempts",
                f"{spec.name} runs as attempt {run.attempt}, attempt {record.next_attempt} is next",
                run.message,
            )
        early = record.not_before - self._now()
        if early > _CLOSE:
            self._fail("waits of retries", f"{spec.name} runs {early:.3f} s early", run.message)

    def _check_start(self, run: Run, ended: EndedLease) -> None:
        """Checks that a process that was frozen for longer than a lease starts no held message."""
        process = run.process
        still = process.resumes - process.stood_still_at
        if process.stood_still_at < ended.time < process.resumes and still > ended.lease:
            self._fail(
                "lost leases",
                f"{run.handler} starts although its lease ended while the process was frozen"
                f" for {still:.3f} s",
                run.message,
            )

    def _check_order(self, run: Run, ledger: Ledger, record: Record) -> None:
        if ledger.earlier(record):
            self._fail(
                "order per key",
                f"{run.handler} runs though an earlier message of key {run.key!r} is not done",
                run.message,
            )
        for other in ledger.running:
            if other.key == run.key and self._holds(other.delivery):
                self._fail(
                    "order per key",
                    f"{run.handler} runs for {other.message} of the same key at the same time",
                    run.message,
                )

    def ended(
        self, runs: Sequence[Run], spec: HandlerSpec, outcome: Outcome, context: Context
    ) -> None:
        """Notes and checks the end of a run."""
        ledger = self.ledger(spec.topic, spec.group)
        outcomes = outcomes_of(runs, spec, outcome)
        outputs = tuple(message.id for item in items_of(context) for message in item.outputs)
        if isinstance(context, BatchContext):  # outputs that name no input depend on all inputs
            outputs += tuple(message.id for message in context.outputs)
        for run, own in zip(runs, outcomes, strict=True):
            if run not in ledger.running:
                continue
            del ledger.running[run]
            record = ledger.records[run.message]
            if own is None:
                record.owes_outputs = False
                self._end_without_verdict(run)
            elif not isinstance(own, Postpone):
                self._end(run, ledger, record, own)
                if not spec.streams and own is outcome:
                    self._outputs(record, spec, outcome, outputs)

    def cancelled(self, runs: Sequence[Run], spec: HandlerSpec) -> None:
        """Notes that a run was cancelled, which is not a failure."""
        ledger = self.ledger(spec.topic, spec.group)
        ledger.disturbances += 1
        for run in runs:
            ledger.running.pop(run, None)
            run.ended, run.outcome = self._now(), "cancelled"
            record = ledger.records[run.message]
            record.cancelled += 1  # the handler may have cancelled itself, which is a failure
            record.owes_outputs = False
            self._trace.add(self._now(), str(run.process), "cancelled", run.message)
            self._check_late(run)

    def _end_without_verdict(self, run: Run) -> None:
        run.ended, run.outcome = self._now(), "again"
        self._trace.add(self._now(), str(run.process), "again", run.message, run.handler)

    def _end(self, run: Run, ledger: Ledger, record: Record, outcome: Outcome) -> None:
        now = self._now()
        run.ended, run.outcome = now, type(outcome).__name__
        self._trace.add(now, str(run.process), run.outcome.lower(), run.message, run.handler)
        lost = self._lost.get(run.delivery)
        if lost is not None and now - lost > _CLOSE:
            self._fail(
                "lost leases",
                f"{run.handler} ran on for {now - lost:.3f} s after its lease was lost",
                run.message,
            )
        self._check_late(run)
        if isinstance(outcome, Done | Skip):
            record.successes += 1
            return
        record.failures += 1
        record.owes_outputs = False
        if isinstance(outcome, DeadLetter):
            record.given_up += 1
        elif isinstance(outcome, Retry) and lost is None and self._holds(run.delivery):
            record.next_attempt = run.attempt + 1
            record.not_before = now + (outcome.delay or 0.0)
            record.disturbances = ledger.disturbances

    def _check_late(self, run: Run) -> None:
        """Checks that a run is cancelled soon after its lease ended at the broker, unless its
        process was frozen meanwhile."""
        ended, now = self._ended(run.delivery), self._now()
        if ended is None or not ended.by_clock or run.process.resumes >= ended.time:
            return
        if not run.process.alive:
            return  # a dead process cancels nothing; its tasks are closed
        late = now - ended.time
        if late > ended.lease * _LATE:
            self._fail(
                "lost leases",
                f"{run.handler} ran on for {late:.3f} s after its lease ended at the broker",
                run.message,
            )

    def _outputs(
        self, record: Record, spec: HandlerSpec, outcome: Outcome, outputs: tuple[str, ...]
    ) -> None:
        if isinstance(outcome, Done):
            record.outputs.append(outputs)
            record.owes_outputs = True
            for each in outputs:
                self.failed_outputs.pop(each, None)
        elif not record.successes:
            self.failed_outputs |= dict.fromkeys(
                (each for each in outputs if each not in self.stored_ids), spec.name
            )


def items_of(context: Context) -> Sequence[Context]:
    """Returns the context of each message of a run."""
    return context.items if isinstance(context, BatchContext) else (context,)


def outcomes_of(
    runs: Sequence[Run], spec: HandlerSpec, outcome: Outcome
) -> Sequence[Outcome | None]:
    """Returns the outcome of each message of a run; None if the message runs again by itself."""
    cause = outcome.__cause__
    if isinstance(outcome, Done | Skip | Postpone) or len(runs) == 1:
        return [outcome] * len(runs)
    if not isinstance(cause, BatchFailed) or not 0 <= max(cause.errors, default=-1) < len(runs):
        return [None] * len(runs)  # each message runs again by itself
    found: list[Outcome | None] = []
    failed: set[bytes] = set()
    in_turn = spec.policy.ordering is not Ordering.NONE
    for index, run in enumerate(runs):
        if in_turn and run.key is not None and run.key in failed:
            found.append(None)  # the message waits for the earlier one with its key
        elif (error := cause.errors.get(index)) is None:
            found.append(Done())
        else:
            found.append(error if isinstance(error, DeadLetter | Skip) else Retry())
            failed.add(run.key or b"")
    return found
