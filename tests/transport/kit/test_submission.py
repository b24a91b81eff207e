"""Submission: one result for each message, one future, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow.errors import PublishError
from protoflow.message import Message
from protoflow.transport.kit.submission import Submission, Submit, submit_by_share

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


async def test_a_result_is_kept_when_the_others_are_confirmed_together() -> None:
    submission = Submission(4)
    error = PublishError("refused")
    submission.done(1, error)
    submission.confirm([0, 1, 2])
    assert submission.left == 1
    assert not submission.future.done()
    submission.confirm([3])
    assert await submission.future == [None, error, None, None]


class Part:
    """A transport that answers when a case wants it to."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.answers: list[asyncio.Future[Sequence[PublishError | None]]] = []

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        self.ids += [message.id for message in messages]
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


async def test_each_transport_has_its_share_in_order_when_submit_returns() -> None:
    left, right = Part(), Part()

    def choose(message: Message) -> Submit:
        return left.submit if message.topic == "left" else right.submit

    messages = [
        Message(id=str(number), topic=topic, payload=b"")
        for number, topic in enumerate(("right", "left", "right", "right"))
    ]
    first = submit_by_share(messages[:3], choose)
    submit_by_share(messages[3:], choose)
    assert (left.ids, right.ids) == (["1"], ["0", "2", "3"])
    refused = PublishError("refused")
    right.answers[0].set_result([refused, None])
    left.answers[0].set_exception(OSError("down"))
    results = await first
    assert (results[0], results[2]) == (refused, None)
    assert "down" in str(results[1])


async def test_a_message_that_is_submitted_twice_has_two_results() -> None:
    left, right = Part(), Part()
    message, other = (Message(id=topic, topic=topic, payload=b"") for topic in ("a", "b"))
    future = submit_by_share(
        [message, other, message], lambda one: (left if one is message else right).submit
    )
    refused = PublishError("refused")
    left.answers[0].set_result([refused, None])
    right.answers[0].set_result([None])
    assert list(await future) == [refused, None, None]
