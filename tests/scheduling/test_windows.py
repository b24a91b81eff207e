"""Windows of a stream: one on its way while the next is made, in order, errors to the run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from protoflow.clock import Clock
from protoflow.errors import PublishError, PublishRefusedError, TransportError
from protoflow.message import Message
from protoflow.publishing.submitter import Submitter
from protoflow.scheduling.windows import WindowPublisher, Windows
from protoflow.stats.handlers import SentMessages
from protoflow.transport.interface import Capabilities


class Broker:
    """Confirms, or refuses, on request."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.answers: list[asyncio.Future[None]] = []

    async def publish(self, messages: Sequence[Message]) -> None:
        self.got += [message.id for message in messages]
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        await answer


def window(*ids: str) -> list[Message]:
    return [Message(id=id, topic="t", payload=b"") for id in ids]


async def test_the_next_is_made_while_one_is_on_its_way_but_no_third() -> None:
    broker = Broker()
    windows = Windows(broker.publish)
    await windows.send(window("1", "2"))
    await asyncio.sleep(0)
    assert broker.got == ["1", "2"], "it is on its way, and nobody waits"
    second = asyncio.create_task(windows.send(window("3")))
    await asyncio.sleep(0.01)
    assert not second.done()
    assert broker.got == ["1", "2"]
    broker.answers[0].set_result(None)
    await second
    end = asyncio.create_task(windows.confirmed())
    await asyncio.sleep(0.01)
    assert broker.got == ["1", "2", "3"]
    assert not end.done()
    broker.answers[1].set_result(None)
    await end


async def test_a_window_that_is_refused_fails_the_run() -> None:
    broker = Broker()
    windows = Windows(broker.publish)
    await windows.send(window("1"))
    await asyncio.sleep(0)
    broker.answers[0].set_exception(PublishError("refused"))
    with pytest.raises(PublishError, match="refused"):
        await windows.send(window("2"))
    assert broker.got == ["1"]
    await windows.confirmed()


class AnsweringTransport:
    """A transport that answers on request, and the publisher over it."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.answers: list[asyncio.Future[Sequence[PublishError | None]]] = []
        self.confirmed: list[str] = []
        self.reasons: list[str | None] = []
        transport: Any = self
        self.publish = WindowPublisher(
            Submitter(transport, SentMessages()),
            Capabilities(max_message_bytes=10),
            lambda messages: self.confirmed.extend(message.id for message in messages),
            Clock(),
            self.reasons.append,
        ).publish

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        self.sent.append([message.id for message in messages])
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]

    async def sent_again(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.sent) < count:
                await asyncio.sleep(0.005)


async def test_a_run_that_is_cancelled_leaves_the_window_on_its_way() -> None:
    broker = AnsweringTransport()
    windows = Windows(broker.publish)
    await windows.send(window("1"))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(windows.confirmed())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    windows.forget()
    await asyncio.sleep(0.01)
    assert not broker.answers[0].cancelled(), "what the transport does goes on"
    broker.answers[0].set_result([PublishError("nobody asks any more")])
    await asyncio.sleep(0.2)
    assert broker.sent == [["1"]], "and is not repeated"


async def test_what_is_not_taken_is_published_again_from_there_on() -> None:
    broker = AnsweringTransport()
    running = asyncio.create_task(broker.publish(window("1", "2", "3")))
    await broker.sent_again(1)
    broker.answers[0].set_result([None, PublishError("no leader"), None])
    await broker.sent_again(2)
    broker.answers[1].set_exception(TransportError("cut"))
    await broker.sent_again(3)
    broker.answers[2].set_result([None, None])
    await asyncio.wait_for(running, 5)
    assert broker.sent == [["1", "2", "3"], ["2", "3"], ["2", "3"]]
    assert broker.confirmed == ["1", "2", "3"]


async def test_only_a_refusal_fails_the_run() -> None:
    broker = AnsweringTransport()
    running = asyncio.create_task(broker.publish(window("1", "2")))
    await broker.sent_again(1)
    broker.answers[0].set_result([PublishError("no leader"), PublishRefusedError("too large")])
    with pytest.raises(PublishRefusedError, match="too large"):
        await asyncio.wait_for(running, 5)
    assert broker.confirmed == []


@pytest.mark.parametrize("flaw", ["delay", "size"])
async def test_a_window_that_the_broker_can_never_take_is_not_sent(flaw: str) -> None:
    broker = AnsweringTransport()
    payload, delay = (b"", 5.0) if flaw == "delay" else (b"x" * 11, 0.0)
    flawed = Message(id="2", topic="t", payload=payload, delay=delay)
    with pytest.raises(PublishRefusedError):
        await broker.publish([*window("1"), flawed])
    assert broker.sent == []
