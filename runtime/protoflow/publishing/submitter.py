"""The only way from the runtime to the broker: each message gets a result and is counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from operator import attrgetter

from protoflow.error_codes import NO_DELAY, TOO_LARGE
from protoflow.errors import PublishError, PublishRefusedError, TransportError
from protoflow.message import Message
from protoflow.stats.handlers import SentMessages
from protoflow.transport.answers import failure_of
from protoflow.transport.capabilities import Capabilities, delay_problem
from protoflow.transport.interface import Transport

_delay = attrgetter("delay")
#: The answer to one submission: a result for each message, None for a confirmed one.
Results = Sequence[TransportError | None]


class Submitter:
    """Submits messages for publishers, schedulers, dead letters and the outbox relay.

    Args:
        transport: the broker.
        sent: counts confirmed messages.
    """

    def __init__(self, transport: Transport, sent: SentMessages) -> None:
        self._transport = transport
        self._sent = sent

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Submits messages now; `results` reads the answer. It never raises."""
        try:
            return self._transport.submit(messages)
        except Exception as error:  # no error is expected here, but no message may wait for it
            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed

    def results(
        self, messages: Sequence[Message], answer: asyncio.Future[Sequence[PublishError | None]]
    ) -> Results:
        """Returns the result of each message of an answered submission."""
        failure = failure_of(answer, "publishing", len(messages))
        if failure is not None:
            return [failure] * len(messages)
        results = answer.result()
        if any(results):
            messages = [m for m, error in zip(messages, results, strict=True) if error is None]
        self._sent.add(messages)
        return results

    async def publish(self, messages: Sequence[Message]) -> Results:
        """Submits messages and returns the result of each. Cancelling this call cancels the
        submission if the transport can."""
        answer = self.submit(messages)
        with contextlib.suppress(Exception):  # the error is read below
            await answer
        return self.results(messages, answer)

    async def publish_shielded(self, messages: Sequence[Message]) -> Results:
        """Submits messages and returns the result of each. If this call is cancelled, for example
        with the run of a handler, the transport continues the submission."""
        answer = self.submit(messages)
        await asyncio.wait((answer,))
        return self.results(messages, answer)


def unconfirmed(
    messages: Sequence[Message], results: Results
) -> tuple[Sequence[Message], TransportError | None]:
    """Returns the messages to publish again, and the reason. These are all messages from the first
    failure on, so that their order is kept. A refusal has priority over other errors, because
    repetition cannot help."""
    for index, error in enumerate(results):
        if error is not None:
            refused = next((e for e in results if isinstance(e, PublishRefusedError)), None)
            return messages[index:], refused or error
    return (), None


def refusal(messages: Sequence[Message], capabilities: Capabilities) -> PublishRefusedError | None:
    """Returns why outputs can never be published, a delay or a size; None if they can."""
    limit = capabilities.max_message_bytes
    if any(map(_delay, messages)):
        for message in messages:
            if message.delay > 0 and (text := delay_problem(message, capabilities)):
                return PublishRefusedError(text, code=NO_DELAY)
    if limit is None:
        return None
    for message in messages:
        payload = message.payload
        if payload is not None and len(payload) > limit:
            return PublishRefusedError(
                f"an output of {len(payload)} bytes to {message.topic} is refused: "
                f"the broker takes {limit}",
                code=TOO_LARGE,
            )
    return None
