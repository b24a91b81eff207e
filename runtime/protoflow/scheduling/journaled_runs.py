"""Receipts and successes in the journal; loaded with `journal_successes` only."""

from __future__ import annotations

from typing import cast

from protoflow.context import Context
from protoflow.journal.handler_journal import HandlerJournal
from protoflow.message import Delivery
from protoflow.outcomes import Done, Outcome, Skip
from protoflow.pipeline import Next


def journaled(run: Next, journal: HandlerJournal) -> Next:
    """Returns a chain that records the begin and the success of each run."""

    async def recorded(delivery: Delivery, context: Context) -> Outcome:
        items = cast("tuple[Context, ...]", getattr(context, "items", (context,)))
        for item in items:
            journal.received(item.message, item.attempt)
        outcome = await run(delivery, context)
        record = {Done: journal.handled, Skip: journal.skipped}.get(type(outcome))
        if record is not None:
            for item in items:
                record(item.message, item.attempt)
        return outcome

    return recorded
