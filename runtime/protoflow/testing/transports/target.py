"""What the suite must know about a transport beside its capabilities."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from protoflow.transport import Transport


@dataclass(frozen=True, kw_only=True)
class TransportTarget:
    """One transport under test.

    Attributes:
        url: a URL under which nothing has happened yet. Every case gets a target of its own.
        options: `TransportSettings.options`.
        patience: the factor by which waits are multiplied; raise it for a slow broker.
        lease: the lease in seconds of subscriptions for which a case sets none.
        crash_options: further options of processes that a case kills, so that the broker
            notices their death soon.
        restarts: how often a case restarts the transport where it restarts many times: more
            than twice as often as deliveries or starts raise suspicion.
        crash: ends a transport as a killed process would. Needed only where everything is in
            the memory of one process; elsewhere the cases kill real processes.
        end_session: makes the broker end what a subscription receives through (a channel, a
            session, a membership) while its connection lives; where another member may take over
            an ordered group, it does. None: the broker has nothing of the kind.
        commits_later: progress is committed a little after it is settled, so what a member had
            settled last comes again when its session ends.
        confirms_when_settled: a publish is confirmed when every group has settled the message, so
            cases publish in the background, and again until it is confirmed.
        refused_names: the cases of look-alike names that the broker itself refuses, by their
            description in `cases.trust`; `ensure` then raises TopologyError.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)  # Any: as in TransportSettings
    patience: float = 1.0
    lease: float = 30.0
    crash_options: Mapping[str, Any] = field(default_factory=dict)  # Any: as in TransportSettings
    restarts: int = 20
    crash: Callable[[Transport], object] | None = None
    end_session: Callable[[Any], Awaitable[None]] | None = None  # Any: the transport's own
    commits_later: bool = False
    confirms_when_settled: bool = False
    refused_names: frozenset[str] = frozenset()
