"""The demands of handlers with exactly-once effects on a service; checked at its start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from protoflow.config.settings import Config
from protoflow.contract.policy import ResolvedRetry
from protoflow.inbox.inbox import Inbox
from protoflow.registrations.subscription_plan import HandlerPlan

NO_INBOX: Final = (
    "its effects are exactly once, which needs an inbox in the database that it writes to; give "
    "the service one: Service(config, inbox=Inbox(pool))"
)


def problems(
    handlers: Iterable[HandlerPlan], inbox: Inbox[Any] | None, config: Config
) -> Iterator[str]:
    """Yields the missing requirements of handlers with exactly-once effects, one sentence each."""
    for handler in handlers:
        registration = handler.registration
        name = registration.name
        if inbox is None:
            yield f"{name}: {NO_INBOX}"
            continue
        if registration.sync and inbox.sync_opener is None:
            yield (
                f"{name}: it runs in a thread; give the inbox a psycopg_pool ConnectionPool or "
                "the path of a SQLite file"
            )
        if not registration.sync and inbox.opener is None:
            yield (
                f"{name}: it runs on the event loop; give the inbox an AsyncConnectionPool, or "
                "generate the handler with handlers=sync"
            )
        if (needed := _needed(handler.policy.retry, config)) > inbox.retention:
            yield (
                f"{name}: the inbox forgets messages after {inbox.retention:g} s, but retries may "
                f"take {needed:g} s; raise its retention, or shorten retry.max_elapsed"
            )


def _needed(retry: ResolvedRetry, config: Config) -> float:
    """Returns the seconds after which no copy of a message can still arrive."""
    if retry.max_elapsed is not None:
        longest = retry.max_elapsed
    else:
        longest = sum(retry.wait(failures, 0.0) for failures in range(1, retry.max_attempts))
    return longest + config.max_hold + max(config.retry_ladder, default=0.0)
