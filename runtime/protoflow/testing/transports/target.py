"""The description of a transport under test, besides its capabilities."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from protoflow.transport import Transport


@dataclass(frozen=True, kw_only=True)
class TransportTarget:
    """One transport under test.

    Attributes:
        url: the URL of an unused location. Every case gets a target of its own.
        options: `TransportSettings.options`.
        patience: the factor by which waits are multiplied; raise it for a slow broker.
        lease: the lease in seconds of subscriptions for which a case sets none.
        crash_options: further options of processes that a case kills, so that the broker
            notices their death soon.
        restarts: how often a case restarts the transport if it restarts many times. It must be
            more than twice the number of deliveries or starts that make a message suspect.
        crash: ends a transport as if its process were killed. Set it only if the transport stores
            everything in the memory of one process; otherwise the cases kill real processes.
        end_session: makes the broker end the channel, session or membership of a subscription
            while its connection lives. If another member may take over an ordered group, it takes
            over. None: the broker has no such sessions.
        commits_later: whether progress is committed a little after a message is settled. The last
            settled messages of a member then arrive again after its session ends.
        confirms_when_settled: whether a publish is confirmed when every group has settled the
            message. Cases then publish in the background, and again until it is confirmed.
        refused_names: the cases of similar names that the broker itself refuses, by their
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
