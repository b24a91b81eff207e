"""Parts that transports are built of, each usable alone.

| part | for |
|---|---|
| `queue_subscription` | a whole subscription to a broker of queues, from fetch, settle and renew |
| `QueueSource` | those functions |
| `ReadyQueue` | deliveries that wait to be handed out |
| `LeaseTable` | deliveries that the broker lent for a time |
| `LeaseRenewer` | renewing those leases, and giving back |
| `SettlementBatch` | settlements on their way to the broker |
| `Submission` | several published messages, one future |
| `DeadLetters` | list, show, replay and purge over a store of dead letters |
| `HealthReporter` | problems, reported when the first begins and the last ends |
| `Supervisor` | a connection that is made again whenever it is lost |
| `Backoff` | waits between repeated attempts |
| `TlsOptions`, `CredentialOptions` | options that have the same names on every transport |
| `WakeSignal` | waiting until something may have arrived |
| `dead_letters.DeadLetters` | list, show, replay and purge over a `DeadLetterStore` |
| `replay.DeadLetterSources` | the message of a replay, if its origin is believed |
| `replay.replay_in_order` | replays where publishing and removing are two steps |

Import each from its own module, `protoflow.transport.kit.ready_queue` and so on; both kinds of
options from `protoflow.transport.kit.security_options`.
"""
