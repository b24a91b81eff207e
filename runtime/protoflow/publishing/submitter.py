"""The one way from the runtime to the broker: every message has a result, and is counted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from protoflow.errors import PublishError, PublishRefusedError, TransportError
from protoflow.message import Message
from protoflow.stats.handlers import SentMessages
from protoflow.transport.capabilities import Capabilities
from protoflow.transport.interface import Transport

_log = logging.getLogger("protoflow.publisher")

#: The answer to one submission: one result for each message, None for a confirmed one.
Results = Sequence[TransportError | None]


class Submitter:
    """Submits messages for publishers, schedulers, dead letters and the outbox relay.

    Args:
        transport: the broker.
        sent: counts what is confirmed.
    """

    def __init__(self, transport: Transport, sent: SentMessages) -> None:
        self._transport = transport
        self._sent = sent

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Submits messages now; `results` reads the answer. Never raises."""
        try:
            return self._transport.submit(messages)
        except Exception as error:  # none should, but nothing may wait for it
            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed

    def results(
        self, messages: Sequence[Message], answer: asyncio.Future[Sequence[PublishError | None]]
    ) -> Results:
        """Returns the result of each message of a submission that was answered."""
        failure = failure_of(answer, "publishing", len(messages))
        if failure is not None:
            return [failure] * len(messages)
        results = answer.result()
        if any(results):
            messages = [m for m, error in zip(messages, results, strict=True) if error is None]
        self._sent.add(messages)
        return results

    async def publish(self, messages: Sequence[Message]) -> Results:
        """Submits messages and returns the result of each. Cancelling it cancels the submission,
        as far as the transport can."""
        answer = self.submit(messages)
        with contextlib.suppress(Exception):  # read below
            await answer
        return self.results(messages, answer)

    async def publish_shielded(self, messages: Sequence[Message]) -> Results:
        """Submits messages and returns the result of each. Cancelling it, as with the run of a
        handler, leaves the submission to the transport."""
        answer = self.submit(messages)
        await asyncio.wait((answer,))
        return self.results(messages, answer)


def failure_of(answer: asyncio.Future[Any], what: str, count: int) -> TransportError | None:
    """Returns why an answer for so many entries has no results; None: it has."""
    if answer.cancelled():
        return PublishError(f"{what} was cancelled: the transport closes")
    error = answer.exception()
    if error is None:
        results = answer.result()
        if len(results) == count:
            return None
        error = RuntimeError(f"{len(results)} results for {count} entries")
    if isinstance(error, TransportError):
        return error
    _log.error(
        "the transport failed", extra={"call": what, "error": f"{type(error).__name__}: {error}"}
    )
    failure = PublishError(f"{what} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def unconfirmed(
    messages: Sequence[Message], results: Results
) -> tuple[Sequence[Message], TransportError | None]:
    """Returns what must be published again and why: everything from the first failure on, so that
    its order is kept. A refusal goes before other errors, for no repetition can help."""
    for index, error in enumerate(results):
        if error is not None:
            refused = next((e for e in results if isinstance(e, PublishRefusedError)), None)
            return messages[index:], refused or error
    return (), None


def delay_problem(message: Message, capabilities: Capabilities) -> str | None:
    """Returns why the transport cannot keep the delay of a message; None: it can."""
    what = f"a message to {message.topic} is to be delayed by {message.delay:g} s, but"
    if not capabilities.delayed_publish:
        return f"{what} the transport has no delayed publish; publish it when it is due"
    if capabilities.max_delay is not None and message.delay > capabilities.max_delay:
        return f"{what} the transport allows {capabilities.max_delay:g} s; publish it later"
    return None


def refusal(messages: Sequence[Message], capabilities: Capabilities) -> PublishRefusedError | None:
    """Returns why outputs can never be published: a delay that cannot be kept, or a size."""
    limit = capabilities.max_message_bytes
    for message in messages:
        if message.delay > 0 and (text := delay_problem(message, capabilities)):
            return PublishRefusedError(text)
        if limit is not None and message.payload is not None and len(message.payload) > limit:
            return PublishRefusedError(
                f"an output of {len(message.payload)} bytes to {message.topic} is refused: "
                f"the broker takes {limit}"
            )
    return None
