"""Chooses how a handler with exactly-once effects runs: on the event loop or in threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protoflow.pipeline import HandlerSpec, Next
from protoflow.registrations.registration import Registration
from protoflow.scheduling.exactly_once import Destination, ExactlyOnce
from protoflow.scheduling.exactly_once_sync import ExactlyOnceSync
from protoflow.scheduling.invoke import Topics
from protoflow.scheduling.threads import Threads

if TYPE_CHECKING:
    from protoflow.inbox import Inbox


class InboxRuns:
    """Makes runs whose effects are applied exactly once.

    Args:
        inbox: opens transactions and records handled messages.
        destination: receives the outputs.
        rehearsal: whether the transactions are rolled back, and outputs stay with the run.
    """

    def __init__(
        self, inbox: Inbox[Any], destination: Destination, *, rehearsal: bool = False
    ) -> None:
        self._inbox = inbox
        self._destination = destination
        self._rehearsal = rehearsal

    def terminal(
        self, registration: Registration, spec: HandlerSpec, threads: Threads, topics: Topics
    ) -> Next:
        """Returns the callable that runs the user's code for a delivery, in one transaction."""
        kind = ExactlyOnceSync if registration.sync else ExactlyOnce
        if self._rehearsal:
            from protoflow.scheduling.rehearsal import Rehearsal, RehearsalSync

            kind = RehearsalSync if registration.sync else Rehearsal
        return kind(registration, spec, self._inbox, self._destination, threads, topics).run
