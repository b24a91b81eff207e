"""One run of a batch: each of its messages succeeds, fails or is run again, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow.context import Context
from protoflow.contract.spec import Ordering
from protoflow.errors import BatchFailed, DecodeError
from protoflow.failure_policy import as_outcome
from protoflow.message import Delivery
from protoflow.outcomes import DONE, Outcome, Skip
from protoflow.scheduling.batch_run import run_batch
from protoflow.scheduling.job import Job
from protoflow.scheduling.lanes import Lanes
from protoflow.scheduling.outcome_applier import OutcomeApplier

from tests.scheduling.fakes import (
    RecordingHost,
    RecordingSettler,
    RecordingSubmitter,
    job_of,
    route_of,
    spec_of,
)

Handler = Callable[[Any], Awaitable[None]]


class Batched:
    """A batch handler within `retry` and `poison_queue`, and its applier."""

    def __init__(self, handler: Handler, undecodable: frozenset[str] = frozenset()) -> None:
        def decode(context: Context) -> Any:
            if context.message.id in undecodable:
                raise DecodeError("no message of its type")
            context.decoded = context.message
            return context.message

        async def run(delivery: Delivery, context: Context) -> Outcome:
            try:
                await handler(context)
            except Outcome as outcome:
                return outcome
            except Exception as error:
                return as_outcome(error, error, delivery, self.spec)
            return DONE

        self.spec = spec_of(decode=decode)
        self.route = route_of(self.spec, run)
        batches: Any = object()  # it is a batch handler
        self.route.gatherer = batches
        self.host = RecordingHost()
        self.settler = RecordingSettler()
        self.submitter = RecordingSubmitter()
        self.lanes = Lanes()
        submitter: Any = self.submitter
        settler: Any = self.settler
        subscription: Any = None
        ordering = Ordering.PER_KEY
        self.applier = OutcomeApplier(self.host, submitter, subscription, settler, ordering)

    def jobs(self, *keys: str) -> list[Job]:
        jobs = [job_of(self.route, str(index), key) for index, key in enumerate(keys)]
        for job in jobs:
            assert self.lanes.enter(job)
        self.lanes.close(jobs)
        return jobs

    async def run(self, jobs: list[Job]) -> None:
        nothing: Any = None
        await run_batch(jobs, nothing, self.applier, self.lanes, self.host)
        await self.applier.dead_letters.finished()


async def test_a_batch_that_succeeds_is_acknowledged_whole() -> None:
    async def handler(_context: Any) -> None:
        pass

    made = Batched(handler)
    await made.run(made.jobs("a", "a", "b"))
    assert made.settler.acknowledged == ["0", "1", "2"]
    assert made.spec.stats.handled == 3


async def test_an_undecodable_message_never_reaches_the_handler() -> None:
    seen: list[list[str]] = []

    async def handler(context: Any) -> None:
        seen.append([item.message.id for item in context.items])

    made = Batched(handler, frozenset({"1"}))
    await made.run(made.jobs("a", "b", "c"))
    assert seen == [["0", "2"]]
    assert [message.id for message in made.submitter.published] == ["1"]
    assert sorted(made.settler.acknowledged) == ["0", "1", "2"]


async def test_an_error_of_the_whole_batch_runs_its_messages_singly() -> None:
    async def handler(_context: Any) -> None:
        raise ValueError("which one?")

    made = Batched(handler)
    await made.run(made.jobs("a", "b"))
    assert made.host.singly == ["0", "1"]
    assert made.spec.stats.failed_runs == 0
    assert made.settler.settled == []


async def test_an_error_of_a_batch_of_one_is_the_error_of_its_message() -> None:
    async def handler(_context: Any) -> None:
        raise ValueError("this one")

    made = Batched(handler)
    await made.run(made.jobs("a"))
    assert made.host.singly == []
    assert made.spec.stats.failed_runs == made.applier.waiting == 1
    made.applier.take_waiting(lambda _job: True)


async def test_a_skipped_batch_is_acknowledged_and_counted() -> None:
    async def handler(_context: Any) -> None:
        raise Skip("not now")

    made = Batched(handler)
    await made.run(made.jobs("a", "b"))
    assert made.settler.acknowledged == ["0", "1"]
    assert made.spec.stats.skipped == 2


async def test_a_batch_with_a_lost_message_is_given_back() -> None:
    jobs: list[Job] = []

    async def handler(_context: Any) -> None:
        jobs[0].lost = True

    made = Batched(handler)
    jobs += made.jobs("a", "b")
    await made.run(jobs)
    assert made.host.given_back == ["0", "1"]
    assert made.settler.settled == []


async def test_a_cancellation_by_the_runtime_gives_the_batch_back() -> None:
    async def handler(_context: Any) -> None:
        raise asyncio.CancelledError

    made = Batched(handler)
    with pytest.raises(asyncio.CancelledError):
        await made.run(made.jobs("a", "b"))
    assert made.host.given_back == ["0", "1"]


@given(st.data())
def test_failed_messages_take_the_later_ones_of_their_key_back(data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.sampled_from("abc"), min_size=2, max_size=10))
    failed = data.draw(st.sets(st.integers(0, len(keys) - 1), min_size=1))

    async def handler(_context: Any) -> None:
        raise BatchFailed({index: ValueError("no") for index in failed})

    async def run() -> None:
        made = Batched(handler)
        await made.run(made.jobs(*keys))
        first = {key: min(i for i in failed if keys[i] == key) for key in {keys[i] for i in failed}}
        done = [
            str(i) for i, key in enumerate(keys)
            if i not in failed and (key not in first or i < first[key])
        ]  # fmt: skip
        assert made.settler.acknowledged == done
        retried = [int(job.message.id) for job in made.applier.take_waiting(lambda _job: True)]
        assert sorted(retried) == sorted(first.values())
        assert made.spec.stats.failed_runs == len(first)
        # Those that were taken back wait in their lanes, behind the failed one.
        back = made.lanes.drop(lambda _job: True)
        rest = [i for i, key in enumerate(keys) if key in first and i > first[key]]
        assert sorted(int(job.message.id) for job in back) == rest

    asyncio.run(run())
