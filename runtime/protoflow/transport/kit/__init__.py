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
| `HealthReporter` | problems, reported when the first begins and the last ends |
| `Supervisor` | a connection that is made again whenever it is lost |
| `Backoff` | waits between repeated attempts |
| `WakeSignal` | waiting until something may have arrived |

Import each from its own module, `protoflow.transport.kit.ready_queue` and so on.
"""
