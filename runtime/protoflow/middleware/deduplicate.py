"""Handles a message once, although the broker may deliver it several times."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from protoflow import wire
from protoflow.context import Context
from protoflow.error_codes import MIDDLEWARE
from protoflow.errors import ConfigError
from protoflow.ids import derived_id
from protoflow.message import Delivery
from protoflow.middleware.dedup_stores import DeduplicationStore, Key
from protoflow.outcomes import DONE, Outcome, Skip
from protoflow.pipeline import HandlerSpec, Middleware, Next

_log = logging.getLogger("protoflow.deduplicate")

#: This many characters of source and id are kept unchanged.
_LONGEST = 200


def deduplicate(store: DeduplicationStore, *, field: str | None = None) -> Middleware:
    """Skips messages that the same handler of the same group has handled successfully.

    The entry is written after the run has succeeded and its outputs are confirmed, so a retry or a
    replayed dead letter is never skipped. After a crash before the entry is written, the message is
    handled twice: duplicates become rare, but delivery is not exactly once.

    Args:
        store: keeps the entries.
        field: a field of the message that replaces the message id; a message with an unset field is
            never skipped. Ids are compared within one CloudEvents source, because two senders may
            both use 1, 2, 3.
    """
    writes: set[asyncio.Future[None]] = set()

    def drop_copies(next: Next, spec: HandlerSpec) -> Next:
        if spec.batched:
            raise ConfigError(
                f"{spec.name}: deduplicate does not support batches; remove it from this handler",
                code=MIDDLEWARE,
            )
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
                context.on_confirmed(lambda: _write(store, key, writes))
            else:
                await store.add(key)
            return outcome

        return run

    return drop_copies


def _write(store: DeduplicationStore, key: Key, writes: set[asyncio.Future[None]]) -> None:
    write = asyncio.ensure_future(store.add(key))
    writes.add(write)

    def written(done: asyncio.Future[None]) -> None:
        writes.discard(done)
        if not done.cancelled() and (error := done.exception()) is not None:
            # The message is done; after an error here, a second copy would be handled again.
            _log.warning(
                "a message was not recorded as handled",
                extra={"handler": key[1], "error": type(error).__name__},
            )

    write.add_done_callback(written)


def _by_id(context: Context) -> str:
    """Joins source and id; long ones are hashed, because anyone can choose them."""
    source = context.message.metadata.get(wire.CE_SOURCE, "")
    id = context.id
    if len(source) + len(id) > _LONGEST:
        return derived_id(source, id)
    return f"{len(source)}:{source}:{id}"


def _identity(spec: HandlerSpec, field: str | None) -> Callable[[Context], str | None]:
    if field is None:
        return _by_id
    if spec.message is None or field not in spec.message.message_class.DESCRIPTOR.fields_by_name:
        raise ConfigError(
            f"{spec.name}: deduplicate: the message has no field {field!r}", code=MIDDLEWARE
        )
    decode: Callable[[Context], Any] = spec.decode

    def identify(context: Context) -> str | None:
        value = getattr(decode(context), field)
        if not value:
            return None
        text = str(value)
        return text if len(text) <= _LONGEST else derived_id(text)

    return identify
