"""The submitter: every message has a result whatever the transport does, and is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow.errors import ConnectionFailedError, PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.publishing.submitter import Submitter, refusal, unconfirmed
from protoflow.stats.handlers import SentMessages
from protoflow.transport.capabilities import Capabilities, delay_problem


def messages(count: int) -> list[Message]:
    return [Message(id=str(index), topic="t", payload=b"") for index in range(count)]


class Transport:
    """Answers each submission with a result, an error, or not at all."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.future: asyncio.Future[Any] | None = None

    def submit(self, _messages: Sequence[Message]) -> asyncio.Future[Any]:
        if isinstance(self.answer, ValueError):
            raise self.answer
        future = self.future = asyncio.get_running_loop().create_future()
        if isinstance(self.answer, BaseException):
            future.set_exception(self.answer)
        elif self.answer == "cancel":
            future.cancel()
        elif self.answer is not None:
            future.set_result(self.answer)
        return future


def submitter(answer: Any) -> tuple[Submitter, SentMessages, Transport]:
    sent, transport = SentMessages(), Transport(answer)
    fake: Any = transport
    return Submitter(fake, sent), sent, transport


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ConnectionFailedError("away"), ConnectionFailedError),
        (RuntimeError("a bug"), PublishError),
        (ValueError("raised by submit"), PublishError),
        ([None], PublishError),
        ("cancel", PublishError),
    ],
)
async def test_a_failed_submission_fails_each_message(answer: Any, error: type) -> None:
    made, sent, _ = submitter(answer)
    results = await made.publish_shielded(messages(2))
    assert [type(result) for result in results] == [error, error]
    assert sent.by_topic() == {}


async def test_what_is_confirmed_is_counted_and_nothing_else() -> None:
    made, sent, _ = submitter([None, PublishError("no leader"), None])
    results = await made.publish(messages(3))
    assert [result is None for result in results] == [True, False, True]
    assert sent.by_topic() == {"t": 2}


async def test_a_cancelled_run_leaves_the_submission_to_the_transport() -> None:
    made, sent, transport = submitter(None)
    running = asyncio.create_task(made.publish_shielded(messages(1)))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert transport.future is not None
    assert not transport.future.cancelled()
    assert sent.by_topic() == {}


@given(st.lists(st.sampled_from(["confirmed", "failed", "refused"]), min_size=1, max_size=8))
def test_what_is_repeated_begins_with_the_first_failure(kinds: list[str]) -> None:
    errors = {
        "confirmed": None, "failed": PublishError("no"), "refused": PublishRefusedError("never"),
    }  # fmt: skip
    given_messages = messages(len(kinds))
    rest, error = unconfirmed(given_messages, [errors[kind] for kind in kinds])
    if set(kinds) == {"confirmed"}:
        assert (rest, error) == ((), None)
        return
    first = next(index for index, kind in enumerate(kinds) if kind != "confirmed")
    assert rest == given_messages[first:]
    assert isinstance(error, PublishRefusedError) == ("refused" in kinds)


@pytest.mark.parametrize(
    ("capabilities", "problem"),
    [
        (Capabilities(), "no delayed publish"),
        (Capabilities(delayed_publish=True, max_delay=1.0), "allows 1 s"),
        (Capabilities(delayed_publish=True), None),
        (Capabilities(delayed_publish=True, max_delay=2.0), None),
    ],
)
def test_a_delay_is_refused_where_it_cannot_be_kept(
    capabilities: Capabilities, problem: str | None
) -> None:
    message = Message(id="1", topic="t", payload=b"", delay=2.0)
    found = delay_problem(message, capabilities)
    assert (found is None) == (problem is None)
    assert problem is None or problem in (found or "")
    refused = refusal([message], capabilities)
    assert (None if refused is None else refused.args[0]) == found
