"""Handles a message once, although it may be delivered more often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from protoflow.context import Context
from protoflow.dedup_stores import DeduplicationStore, Key
from protoflow.errors import ConfigError
from protoflow.message import Delivery
from protoflow.outcomes import DONE, Outcome, Skip
from protoflow.pipeline import HandlerSpec, Middleware, Next


def deduplicate(store: DeduplicationStore, *, field: str | None = None) -> Middleware:
    """Skips what the same handler of the same group handled with success before.

    The entry is written when the run succeeded and its outputs are confirmed; so what failed, a
    retry or a replayed dead letter, is never swallowed. A crash between the two shows a message
    twice: this makes copies rare, it does not make delivery exactly once.

    Args:
        store: what remembers.
        field: a field of the message to go by in place of the message id; unset is no copy.
    """
    writes: set[asyncio.Future[None]] = set()

    def drop_copies(next: Next, spec: HandlerSpec) -> Next:
        if spec.batched:
            raise ConfigError(f"{spec.name}: deduplicate does not work on batches; drop it there")
        identify = _identity(spec, field)

        async def run(delivery: Delivery, context: Context) -> Outcome:
            identity = identify(context)
            if identity is None:
                return await next(delivery, context)
            key = (spec.group, spec.name, identity)
            if await store.contains(key):
                raise Skip("handled before")
            outcome = await next(delivery, context)
            if outcome is not DONE:
                return outcome
            if context.outputs:
                context.when_confirmed(lambda: _write(store, key, writes))
            else:
                await store.add(key)
            return outcome

        return run

    return drop_copies


def _write(store: DeduplicationStore, key: Key, writes: set[asyncio.Future[None]]) -> None:
    write = asyncio.ensure_future(store.add(key))
    writes.add(write)
    write.add_done_callback(writes.discard)


def _identity(spec: HandlerSpec, field: str | None) -> Callable[[Context], str | None]:
    if field is None:
        return lambda context: context.id
    if spec.message is None or field not in spec.message.message_class.DESCRIPTOR.fields_by_name:
        raise ConfigError(f"{spec.name}: deduplicate: the message has no field {field!r}")
    decode: Callable[[Context], Any] = spec.decode

    def identify(context: Context) -> str | None:
        value = getattr(decode(context), field)
        return str(value) if value else None

    return identify
