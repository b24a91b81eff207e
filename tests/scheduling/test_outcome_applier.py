"""Outcomes: each is applied once, settles or keeps its message, and is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow import wire
from protoflow.contract.spec import (
    DeadLetterPolicy,
    DeliveryPolicy,
    OnExhausted,
    Ordering,
    RetryPolicy,
)
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.failure_policy import Dropped, Exhausted, as_outcome, scheduled_retry
from protoflow.message import Action, Message
from protoflow.outcomes import DONE, DeadLetter, Outcome, Postpone, Retry, RetryAfter, Skip
from protoflow.scheduling.job import Job
from protoflow.scheduling.outcome_applier import OutcomeApplier
from protoflow.transport.capabilities import Capabilities

from tests.scheduling.fakes import (
    RecordingHost,
    RecordingSettler,
    RecordingSubmitter,
    job_of,
    message_of,
    route_of,
    spec_of,
)

BLOCK = DeliveryPolicy(
    retry=RetryPolicy(max_attempts=2), dead_letter=DeadLetterPolicy(on_exhausted=OnExhausted.BLOCK)
)


class Applied:
    """An applier, and everything that it asks for."""

    def __init__(
        self, delivery: DeliveryPolicy | None = None, *, ordering: Ordering = Ordering.NONE,
        capabilities: Capabilities | None = None, defer: Message | None = None,
    ) -> None:  # fmt: skip
        self.spec = spec_of(delivery, capabilities=capabilities)
        self.route = route_of(self.spec)
        self.host = RecordingHost()
        self.settler = RecordingSettler()
        self.submitter = RecordingSubmitter()
        self.deferred: list[float] = []
        self._defer = defer
        this: Any = self
        settler: Any = self.settler
        submitter: Any = self.submitter
        self.applier = OutcomeApplier(self.host, submitter, this, settler, ordering)

    def defer(self, _message: Message, delay: float) -> Message | None:
        self.deferred.append(delay)
        return self._defer

    def apply(self, outcome: Outcome, outputs: tuple[Message, ...] = (), **fields: Any) -> Job:
        job = job_of(self.route, **fields)
        self.applier.apply_outcome(job, outcome, outputs)
        return job


async def test_a_run_without_outputs_is_acknowledged_at_once() -> None:
    made = Applied()
    made.apply(DONE, lane="k")
    assert made.settler.acknowledged == made.host.ended == ["1"]
    assert made.spec.stats.handled == 1


async def test_outputs_are_confirmed_before_their_message_is_acknowledged() -> None:
    made = Applied()
    made.apply(DONE, (message_of("out"),))
    assert made.settler.acknowledged == []
    made.settler.confirm[0](None)
    assert made.settler.acknowledged == ["1"]
    assert (made.spec.stats.handled, made.spec.stats.published) == (1, 1)


async def test_outputs_that_are_taken_out_acknowledge_nothing() -> None:
    made = Applied()
    job = made.apply(DONE, (message_of("out"),))
    assert made.applier.take_published(lambda _job: True) == [job]
    made.settler.confirm[0](None)
    assert made.settler.settled == []


async def test_a_refused_output_dead_letters_its_message() -> None:
    made = Applied()
    made.apply(DONE, (message_of("out"),))
    made.settler.confirm[0](PublishRefusedError("too large"))
    await made.applier.dead_letters.finished()
    (dead_letter,) = made.submitter.published
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "output"
    assert made.settler.acknowledged == ["1"]


@pytest.mark.parametrize("flaw", [{"delay": 5.0}, {"payload": b"x" * 11}])
async def test_an_output_that_can_never_be_published_is_not_submitted(flaw: dict[str, Any]) -> None:
    made = Applied(capabilities=Capabilities(max_message_bytes=10))
    made.apply(DONE, (message_of("out", **flaw),))
    await made.applier.dead_letters.finished()
    assert made.settler.published == []
    assert made.submitter.published[0].metadata[wire.PF_ERROR_CLASS] == "output"


async def test_an_exhausted_message_that_is_given_back_repeats_its_last_run() -> None:
    made = Applied(DeliveryPolicy(retry=RetryPolicy(max_attempts=3)))
    made.submitter.answers = [PublishError("the dead-letter topic is away")]
    job = made.apply(DeadLetter("no"), failures=2)
    await asyncio.sleep(0.01)
    assert (job.delivery.failures, made.settler.settled) == (3, [])
    made.applier.release(job)
    ((_, settlement),) = made.settler.settled
    assert (settlement.action, settlement.failures) == (Action.RELEASE, 2)


async def test_a_message_that_blocks_is_given_back_with_all_its_failures() -> None:
    made = Applied(BLOCK)
    made.applier.release(job_of(made.route, failures=7))
    ((_, settlement),) = made.settler.settled
    assert (settlement.action, settlement.failures) == (Action.RELEASE, 7)


async def test_the_policy_decides_wait_and_blocking_once() -> None:
    made = Applied(BLOCK)
    job = job_of(made.route, failures=1)
    decided = scheduled_retry(ValueError("no"), job.delivery, made.spec)
    assert (decided.delay, decided.blocks) == (2.0, True)
    made.applier.apply_outcome(job, decided)
    assert made.applier.exhausted == {job}
    assert "blocked by 1 exhausted message: 1" in made.host.problems.values()
    assert made.applier.waiting == 1
    assert made.settler.settled == []


async def test_a_retry_that_no_policy_has_seen_is_decided_like_any_other() -> None:
    made = Applied(BLOCK)
    made.apply(Retry("again"), failures=1)
    assert len(made.applier.exhausted) == 1
    made = Applied()
    made.apply(RetryAfter(0.0, "now"))
    await asyncio.sleep(0.01)
    assert made.host.again == ["1"]


@pytest.mark.parametrize(
    ("ordering", "broker_retry", "where"),
    [
        (Ordering.NONE, True, "broker"),
        (Ordering.PER_KEY, True, "memory"),
        (Ordering.NONE, False, "memory"),
    ],
)
async def test_a_long_wait_is_kept_by_the_broker_where_it_can(
    ordering: Ordering, broker_retry: bool, where: str
) -> None:
    made = Applied(ordering=ordering, capabilities=Capabilities(broker_retry=broker_retry))
    made.apply(RetryAfter(60.0, "later"))
    assert made.deferred == ([60.0] if where == "broker" else [])
    assert made.applier.waiting == (where == "memory")
    if where == "broker":
        ((_, settlement),) = made.settler.settled
        assert (settlement.action, settlement.delay, settlement.failures) == (Action.NACK, 60.0, 1)
    made.applier.take_waiting(lambda _job: True)


async def test_a_retry_that_the_broker_refuses_waits_in_memory() -> None:
    made = Applied(capabilities=Capabilities(broker_retry=True), defer=message_of("retry"))
    made.apply(RetryAfter(60.0, "later"))
    made.settler.confirm[0](PublishRefusedError("no"))
    assert (made.applier.waiting, made.settler.settled) == (1, [])
    made.applier.take_waiting(lambda _job: True)


async def test_a_dead_letter_is_confirmed_before_its_message_is_acknowledged() -> None:
    made = Applied()
    made.submitter.answers = [PublishError("no leader")]
    made.apply(DeadLetter("wrong"), lane="k")
    await asyncio.sleep(0.02)
    assert made.settler.acknowledged == []
    assert made.host.paused == {"dead letters cannot be published"}
    await made.applier.dead_letters.finished()
    assert made.settler.acknowledged == made.host.ended == ["1"]
    assert made.host.paused == set()
    assert made.spec.stats.dead_lettered == 1


async def test_each_refusal_makes_a_dead_letter_smaller() -> None:
    made = Applied()
    made.submitter.answers = [PublishRefusedError("too large")] * 2
    made.apply(DeadLetter("wrong"))
    await made.applier.dead_letters.finished()
    sizes = [len(message.payload or b"") for message in made.submitter.published]
    assert sizes == [1, 1, 0], "as it is, with the least metadata, without its payload"
    assert made.settler.acknowledged == ["1"]


async def test_where_nothing_is_kept_a_message_is_dropped_and_counted() -> None:
    made = Applied(capabilities=Capabilities(at_least_once=False))
    made.apply(DeadLetter("wrong"))
    assert made.submitter.published == []
    assert (made.spec.stats.dropped, made.settler.acknowledged) == (1, ["1"])


async def test_what_cannot_be_applied_ends_as_a_stub() -> None:
    made = Applied(capabilities=Capabilities(broker_retry=True))
    broken: Any = made
    broken.defer = None  # a bug of a transport
    made.apply(RetryAfter(60.0, "later"))
    await made.applier.dead_letters.finished()
    (stub,) = made.submitter.published
    assert stub.metadata[wire.PF_ERROR_CLASS] == "stub"
    assert "position 1" in stub.metadata[wire.PF_ERROR_MESSAGE]
    assert made.settler.acknowledged == ["1"]


OUTCOMES = st.sampled_from(["done", "retry", "dead letter", "skip", "drop", "postpone"])


@given(st.lists(OUTCOMES, min_size=1, max_size=12))
def test_each_message_is_settled_once_or_waits(kinds: list[str]) -> None:
    outcomes = {
        "done": DONE, "retry": RetryAfter(1.0), "dead letter": Exhausted("no"), "skip": Skip("no"),
        "drop": Dropped(), "postpone": Postpone(1.0),
    }  # fmt: skip

    async def run() -> None:
        made = Applied()
        for index, kind in enumerate(kinds):
            made.apply(outcomes[kind], id=str(index))
        await made.applier.dead_letters.finished()
        waiting = [i for i, kind in enumerate(kinds) if kind in ("retry", "postpone")]
        settled = [str(i) for i in range(len(kinds)) if i not in waiting]
        assert sorted(made.settler.acknowledged, key=int) == settled
        assert made.applier.waiting == len(waiting)
        stats = made.spec.stats
        failed = [kind for kind in kinds if kind in ("retry", "dead letter", "drop")]
        assert stats.failed_runs == len(failed)
        assert stats.retried == kinds.count("retry")
        assert stats.dead_lettered == kinds.count("dead letter")
        assert stats.skipped == kinds.count("skip")
        taken = made.applier.take_waiting(lambda _job: True)
        assert [int(job.message.id) for job in taken] == waiting

    asyncio.run(run())


@given(attempts=st.integers(1, 6), failures=st.integers(0, 8), block=st.booleans())
def test_a_failed_run_is_retried_as_long_as_attempts_are_left(
    attempts: int, failures: int, block: bool
) -> None:
    on_exhausted = OnExhausted.BLOCK if block else OnExhausted.DEAD_LETTER
    spec = spec_of(
        DeliveryPolicy(
            retry=RetryPolicy(max_attempts=attempts),
            dead_letter=DeadLetterPolicy(on_exhausted=on_exhausted),
        )
    )
    error = ValueError("no")
    outcome = as_outcome(error, error, job_of(route_of(spec), failures=failures).delivery, spec)
    used_up = failures + 1 >= attempts
    assert isinstance(outcome, RetryAfter) == (block or not used_up)
    if isinstance(outcome, RetryAfter):
        assert outcome.blocks == (block and used_up)
        assert outcome.__cause__ is error
    else:
        assert isinstance(outcome, Exhausted)
