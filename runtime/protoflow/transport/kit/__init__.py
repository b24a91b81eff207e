"""Building blocks for transports; each can be used alone.

| part | for |
|---|---|
| `queue_subscription` | a whole subscription to a broker of queues, from fetch, settle and renew |
| `QueueSource` | these functions of a transport |
| `QueueSubscription` | what `queue_subscription` returns, for transports that keep start marks |
| `ReadyQueue` | deliveries that wait to be handed out |
| `LeaseTable` | deliveries that the broker lent for a time |
| `LeaseRenewer` | renewing those leases, and giving back |
| `SettlementBatch` | settlements on their way to the broker |
| `Submission` | several published messages, one future |
| `HealthReporter` | problems, reported when the first begins and the last ends |
| `Supervisor` | a connection that is made again whenever it is lost |
| `Periodic` | a function that is called at an interval, whatever it raises |
| `Backoff` | waits between repeated attempts |
| `WakeSignal` | waiting until something may have arrived |
| `TlsOptions`, `CredentialOptions` | options that have the same names on every transport |
| `DeadLetters`, `DeadLetterFilter` | list, show, replay and purge over a `DeadLetterStore` |
| `DeadLetterSources` | the message of a replay, if its origin is valid |
| `replay_in_order` | replays, if publishing and removing are two steps |

Names are loaded when first used, so a transport loads only the parts that it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protoflow.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from protoflow.transport.kit.backoff import Backoff as Backoff
    from protoflow.transport.kit.dead_letter_selection import DeadLetterFilter as DeadLetterFilter
    from protoflow.transport.kit.dead_letters import DeadLetters as DeadLetters
    from protoflow.transport.kit.health_reporter import HealthReporter as HealthReporter
    from protoflow.transport.kit.lease_renewer import LeaseRenewer as LeaseRenewer
    from protoflow.transport.kit.leases import LeaseTable as LeaseTable
    from protoflow.transport.kit.periodic import Periodic as Periodic
    from protoflow.transport.kit.queue_source import QueueSource as QueueSource
    from protoflow.transport.kit.ready_queue import ReadyQueue as ReadyQueue
    from protoflow.transport.kit.replay import DeadLetterSources as DeadLetterSources
    from protoflow.transport.kit.replay import replay_in_order as replay_in_order
    from protoflow.transport.kit.security_options import CredentialOptions as CredentialOptions
    from protoflow.transport.kit.security_options import TlsOptions as TlsOptions
    from protoflow.transport.kit.settlement_batch import SettlementBatch as SettlementBatch
    from protoflow.transport.kit.submission import Submission as Submission
    from protoflow.transport.kit.subscription import QueueSubscription as QueueSubscription
    from protoflow.transport.kit.subscription import queue_subscription as queue_subscription
    from protoflow.transport.kit.supervisor import Supervisor as Supervisor
    from protoflow.transport.kit.wake_signal import WakeSignal as WakeSignal

_HOMES = {
    "Backoff": "backoff",
    "CredentialOptions": "security_options",
    "DeadLetterFilter": "dead_letter_selection",
    "DeadLetterSources": "replay",
    "DeadLetters": "dead_letters",
    "HealthReporter": "health_reporter",
    "LeaseRenewer": "lease_renewer",
    "LeaseTable": "leases",
    "Periodic": "periodic",
    "QueueSource": "queue_source",
    "QueueSubscription": "subscription",
    "ReadyQueue": "ready_queue",
    "SettlementBatch": "settlement_batch",
    "Submission": "submission",
    "Supervisor": "supervisor",
    "TlsOptions": "security_options",
    "WakeSignal": "wake_signal",
    "queue_subscription": "subscription",
    "replay_in_order": "replay",
}

if not TYPE_CHECKING:
    __getattr__ = lazy_exports(__name__, _HOMES)
