"""The innermost step: decode the message, call the handler, encode its result.

There is one callable per handler. It is chosen at start by the handler's shape, so that no decision
is repeated for each message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

from protoflow import wire
from protoflow.codecs.payload import decode
from protoflow.codecs.threaded import LARGE, decode_in_thread
from protoflow.context import Context
from protoflow.contract.spec import ProtoClass, PublicationSpec
from protoflow.error_codes import HANDLER_RESULT, coded
from protoflow.errors import (
    AuthenticationError,
    DecodeError,
    TopologyError,
    TransportError,
    Unprepared,
)
from protoflow.handler import Batch
from protoflow.message import Delivery, Message
from protoflow.outcomes import DONE, Outcome
from protoflow.output import Output
from protoflow.pipeline import HandlerSpec, Next
from protoflow.registrations.registration import Registration
from protoflow.scheduling.batching import BatchContext
from protoflow.scheduling.threads import Threads
from protoflow.scheduling.windows import BYTES, MESSAGES, PublishNow, Windows
from protoflow.sync_context import SyncContext
from protoflow.transport.kit.backoff import Backoff

T = TypeVar("T")

#: Results that are taken from a thread at once.
_TAKEN = 64
#: Waits before the topics of outputs are made or verified again, in seconds.
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0


class Topics(Protocol):
    """Makes or verifies topics before the first message to them."""

    def unknown(self, messages: Sequence[Message]) -> bool:
        """Whether a topic of these messages is not made or verified yet."""
        ...

    async def ensure(self, messages: Sequence[Message]) -> None:
        """Makes or verifies the topics of these messages. Raises TransportError."""


async def ensure_topics(topics: Topics, messages: Sequence[Message]) -> None:
    """Makes or verifies the topics of outputs. Waits while the broker is unreachable or does not
    confirm. Errors of the broker about topics are raised."""
    backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
    while True:
        try:
            await topics.ensure(messages)
        except (TopologyError, AuthenticationError):
            raise
        except TransportError:
            await asyncio.sleep(backoff.next())
        else:
            return


def decoder(message_class: ProtoClass) -> Callable[[Context], Any]:
    """Returns the decoder of a handler's input; it decodes once per run."""
    content_type = wire.CONTENT_TYPE

    def decode_once(context: Context) -> Any:
        decoded = context.decoded
        if decoded is None:
            message = context.message
            payload = message.payload
            if payload is None:
                raise DecodeError("a tombstone has no payload")
            decoded = decode(payload, message.metadata.get(content_type), message_class)
            context.decoded = decoded
        return decoded

    return decode_once


def terminal(
    registration: Registration, spec: HandlerSpec, publish_now: PublishNow, threads: Threads,
    topics: Topics,
) -> Next:  # fmt: skip
    """Returns the callable that runs the user's code for a delivery."""
    if registration.streams:
        return _streaming(registration, spec, publish_now, threads, topics)
    call = registration.call
    if registration.sync:
        call = _in_thread(registration.call, threads)
    if registration.batched:
        return _batched(call, spec.publication, topics)
    return _unary(call, spec.decode, spec.publication, topics)


def _unary(
    call: Callable[[Any, Context], Awaitable[Any]],
    decode_once: Callable[[Context], Any],
    publication: PublicationSpec | None,
    topics: Topics,
) -> Next:
    async def consume(delivery: Delivery, context: Context) -> Outcome:
        if delivery.size > LARGE:
            await decode_in_thread(decode_once, context)
        await call(decode_once(context), context)
        if context.outputs and topics.unknown(context.outputs):
            await ensure_topics(topics, context.outputs)
        return DONE

    async def transform(delivery: Delivery, context: Context) -> Outcome:
        if delivery.size > LARGE:
            await decode_in_thread(decode_once, context)
        result = await call(decode_once(context), context)
        if result is not None:
            try:
                keep_result(context, publication, result)
            except Unprepared as needed:
                await needed.prepare()
                keep_result(context, publication, result)
        if context.outputs and topics.unknown(context.outputs):
            await ensure_topics(topics, context.outputs)
        return DONE

    return consume if publication is None else transform


def _batched(
    call: Callable[[Any, Context], Awaitable[Any]],
    publication: PublicationSpec | None,
    topics: Topics,
) -> Next:
    async def run(_delivery: Delivery, context: Context) -> Outcome:
        result = await call(_batch(context), context)
        if result is not None and publication is not None:
            try:
                keep_result(context, publication, result)
            except Unprepared as needed:
                await needed.prepare()
                keep_result(context, publication, result)
        if topics.unknown(outputs := all_outputs(context)):
            await ensure_topics(topics, outputs)
        return DONE

    return run


def all_outputs(context: Context) -> list[Message]:
    """Returns all outputs of a run so far, including those of a batch's messages."""
    items = context.items if isinstance(context, BatchContext) else ()
    outputs = [*context.outputs]
    for item in items:
        if item.outputs:
            outputs += item.outputs
    return outputs


def _batch(context: Context) -> Batch[Any]:
    if not isinstance(context, BatchContext):
        raise TypeError("a batch handler was given a single message")
    return Batch([item.decoded for item in context.items], context.items)


def _streaming(
    registration: Registration, spec: HandlerSpec, publish_now: PublishNow, threads: Threads,
    topics: Topics,
) -> Next:  # fmt: skip
    windowed = not spec.capabilities.atomic

    async def run(_delivery: Delivery, context: Context) -> Outcome:
        given = _batch(context) if registration.batched else spec.decode(context)
        size = 0
        windows = Windows(publish_now)
        try:
            async with aclosing(results_of(registration, given, context, threads)) as results:
                async for result in results:
                    try:
                        size += keep_result(context, spec.publication, result)
                    except Unprepared as needed:
                        await needed.prepare()
                        size += keep_result(context, spec.publication, result)
                    if windowed and (len(context.outputs) >= MESSAGES or size >= BYTES):
                        if topics.unknown(context.outputs):
                            await ensure_topics(topics, context.outputs)
                        await windows.send(context.take_outputs())
                        size = 0
            if topics.unknown(outputs := all_outputs(context)):
                await ensure_topics(topics, outputs)
            await windows.confirmed()
        finally:
            windows.forget()
        return DONE

    return run


def results_of(
    registration: Registration, given: Any, context: Context, threads: Threads
) -> AsyncGenerator[Any, None]:
    """Returns the results of a stream handler. Raises TypeError if it is no generator."""
    if registration.sync:
        return _results_in_thread(registration, given, context, threads)
    results: AsyncGenerator[Any, None] = registration.call(given, context)
    if not hasattr(results, "__aiter__"):
        if asyncio.iscoroutine(results):
            results.close()
        text = f"{registration.name} must be an asynchronous generator (`async def` with `yield`)"
        raise TypeError(coded(text, HANDLER_RESULT))
    return results


async def _results_in_thread(
    registration: Registration, given: Any, context: Context, threads: Threads
) -> AsyncGenerator[Any, None]:
    # Switching threads is costly, so several results are taken at once.
    sync = _sync(context, threads)
    iterator: Iterator[Any] = iter(
        await _held(lambda: registration.call(given, sync), context, threads)
    )
    try:
        while window := await _held(lambda: list(islice(iterator, _TAKEN)), context, threads):
            for result in window:
                yield result
    finally:
        if (close := getattr(iterator, "close", None)) is not None:
            await threads.run(close)


def _in_thread(call: Callable[..., Any], threads: Threads) -> Callable[..., Awaitable[Any]]:
    async def run(given: Any, context: Context) -> Any:
        sync = _sync(context, threads)
        return await _held(lambda: call(given, sync), context, threads)

    return run


async def _held(call: Callable[[], T], context: Context, threads: Threads) -> T:
    """Runs a function in a thread and waits for the thread even when cancelled: a thread cannot be
    stopped, and its message must not be handled twice at once."""
    future = threads.run(call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        context.mark_cancelled()
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                continue
        if not future.cancelled():
            # the error of the thread is dropped: the cancellation is the outcome
            future.exception()
        raise


def _sync(context: Context, threads: Threads) -> SyncContext:
    return SyncContext(context, partial(threads.call_on_loop, asyncio.get_running_loop()))


def keep_result(context: Context, publication: PublicationSpec | None, result: Any) -> int:
    """Keeps a result for publication, and returns the size of its payload."""
    if publication is None:
        raise TypeError(coded("a handler without a publication returned a message", HANDLER_RESULT))
    output = result if isinstance(result, Output) else Output(result)
    context.add_output(publication, output)
    return len(context.outputs[-1].payload or b"")
