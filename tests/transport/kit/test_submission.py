"""Submission: one result for each message, one future, nothing twice."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow.errors import PublishError
from protoflow.transport.kit.submission import Submission

STEPS = st.lists(st.tuples(st.integers(0, 4), st.booleans()))


@settings(deadline=None)
@given(steps=STEPS, size=st.integers(0, 5), late=st.booleans())
def test_the_first_result_of_each_message_counts(
    steps: list[tuple[int, bool]], size: int, late: bool
) -> None:
    async def run() -> None:
        submission = Submission(size, deadline=10.0)
        results: dict[int, PublishError | None] = {}
        for index, failed in steps:
            if index >= size:
                continue
            result = PublishError("refused") if failed else None
            assert submission.done(index, result) == (index not in results)
            results.setdefault(index, result)
            assert submission.left == size - len(results)
            assert submission.future.done() == (len(results) == size)
        timeout = PublishError("not confirmed in time")
        over = submission.expire(10.0 if late else 9.9, timeout)
        assert over == submission.future.done() == (late or len(results) == size)
        if over:
            assert await submission.future == [results.get(index, timeout) for index in range(size)]
        else:
            open_ = [index for index in range(size) if submission.is_open(index)]
            assert {*submission.open()} == {*open_} == {*range(size)} - results.keys()

    asyncio.run(run())


async def test_a_cancelled_future_takes_no_harm() -> None:
    submission = Submission(1)
    submission.future.cancel()
    assert submission.done(0, None)


async def test_finish_answers_everything_that_is_open() -> None:
    submission = Submission(3)
    submission.done(1, None)
    error = PublishError("closed")
    submission.finish(error)
    assert await submission.future == [error, None, error]
