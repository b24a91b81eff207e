"""The rules: verdict, effect and rollout for each kind of change."""

from __future__ import annotations

from collections.abc import Mapping

from protoflow.breaking.rule import (
    Consequence,
    Rule,
    consumers_first,
    drain,
    loses,
    loses_order,
    safe,
)
from protoflow.breaking.verdict import Rollout, Verdict

_KEPT_FOR_NEW_GROUPS = "the first new consumer creates the group, which begins where `start` says"
_NOT_KEPT = consumers_first("the broker keeps nothing for a group before its first consumer")
_WAITS_FOR_OLD = drain(
    "new processes do not start, or are not ready, while old ones run with another ordering"
)
_FIXED_SHARDS = drain(
    "the start is refused: keys would move to other shards and overtake each other"
)

_SUBSCRIPTIONS = {
    "handler.added": safe(
        "a handler with a subscription of its own is added",
        _KEPT_FOR_NEW_GROUPS,
        {"amqp": _NOT_KEPT, "amqps": _NOT_KEPT, "nats": _NOT_KEPT, "nats+tls": _NOT_KEPT},
    ),
    "handler.added.latest": Rule(
        "a handler of a new topic is added with START_LATEST",
        consumers_first("messages before the first new consumer are not delivered to it"),
    ),
    "handler.removed": Rule(
        "the last handler of a topic in a group is removed",
        Consequence(
            Verdict.PRODUCERS_FIRST,
            "waiting messages and dead letters of the group stay at the broker unhandled",
            Rollout.PRODUCERS_FIRST,
        ),
    ),
    "handler.renamed": safe(
        "a handler has another name",
        "messages find the handler by topic, group and type; rename its settings in "
        "`handlers.\"NAME\"` too",
    ),
    "topic.moved": Rule(
        "a handler consumes another topic",
        drain("the new version reads neither waiting messages nor retries of the old topic"),
    ),
    "group.moved": Rule(
        "a handler consumes in another group",
        drain(
            "waiting messages, retries and dead letters stay with the old group; the new group "
            "begins where `start` says"
        ),
    ),
    "type.added": Rule(
        "a subscription handles a type that its topic did not have",
        consumers_first("old consumers skip or dead-letter the type, as `unhandled` says"),
    ),
    "type.added.known": safe(
        "a subscription handles another type, which its topic had before or which is an alias",
        "old consumers do not change",
    ),
    "type.removed": Rule(
        "a subscription does not handle a type any more",
        loses(
            "new consumers skip messages of the type; if it was renamed, list the old name in"
            " `aliases`",
            Rollout.PRODUCERS_FIRST,
        ),
    ),
    "type.removed.dead_lettered": Rule(
        "the same with UNHANDLED_TYPES_DEAD_LETTER",
        Consequence(
            Verdict.PRODUCERS_FIRST,
            "new consumers dead-letter messages of the type, and only the old version can replay"
            " them",
            Rollout.PRODUCERS_FIRST,
        ),
    ),
    "unhandled.skipped": Rule(
        "unhandled types are skipped, not dead-lettered",
        loses("messages of types without a handler are acknowledged", Rollout.KEEP),
    ),
    "unhandled.dead_lettered": safe(
        "unhandled types are dead-lettered, not skipped", "they wait for a replay"
    ),
    "broadcast.on": Rule(
        "a subscription becomes a broadcast",
        drain("waiting messages stay with the group; each process begins at the next message"),
    ),
    "broadcast.off": Rule(
        "a broadcast becomes a subscription of a group",
        loses("only one process gets each message", Rollout.KEEP),
    ),
    "effects.exactly_once": safe(
        "effects become exactly once",
        "old processes write no inbox entries: messages that they did not acknowledge may have "
        "their effects twice",
    ),
    "effects.weaker": safe(
        "effects are not exactly once any more",
        "a message that is redelivered may have its effects again",
    ),
    "start.changed": safe(
        "`start` changes", "`start` applies only to groups that have no position"
    ),
}  # fmt: skip

_ORDER = {
    "key.moved": Rule(
        "the partition key of a message in an ordered topic is another field",
        loses_order(
            "messages of old and new producers have different keys, so they are not ordered with"
            " each other",
            Rollout.DRAIN,
        ),
    ),
    "key.moved.unordered": safe(
        "the partition key of a message is another field, and nothing in the contract is ordered"
        " by it",
        "nothing promises an order; messages may go to other partitions",
    ),
    "key.removed": Rule(
        "a message in an ordered topic has no partition key any more",
        loses_order("messages without a key are not ordered", Rollout.KEEP),
    ),
    "key.added": safe(
        "a message gets a partition key",
        "new messages are ordered by key; earlier ones were not ordered",
    ),
    "ordering.weaker": Rule(
        "the ordering becomes weaker",
        loses_order(
            "messages that were handled one at a time are handled at the same time", Rollout.KEEP
        ),
    ),
    "ordering.stronger": safe(
        "the ordering becomes stronger",
        "the new ordering applies when no old consumer runs",
        dict.fromkeys(("amqp", "amqps", "jetstream", "jetstream+tls"), _WAITS_FOR_OLD),
    ),
    "shards.changed": Rule(
        "the transport's option `shards` changes", _FIXED_SHARDS
    ),
    "concurrency.changed": safe("the concurrency changes", "order does not depend on it"),
    "batch.changed": safe(
        "a handler gets batches, no batches, or batches with other limits",
        "each message keeps its attempts and its order",
    ),
    "streams.changed": safe(
        "outputs are streamed, or no longer streamed", "the ids of outputs do not change"
    ),
    "atomic.on": safe("`atomic` is set", "outputs and settlement become visible together"),
    "atomic.off": safe(
        "`atomic` is unset",
        "a run that is repeated publishes its outputs again, with the same ids",
    ),
}  # fmt: skip

_FAILURES = {
    "retry.more": safe(
        "failed messages are retried more often or for longer", "messages get more runs"
    ),
    "retry.beyond_retention": Rule(
        "an ordered message may wait for retries longer than the broker keeps it",
        loses(
            "the broker deletes the waiting message; after a restart the position is lost",
            Rollout.KEEP,
        ),
        {
            scheme: Consequence(
                Verdict.SAFE,
                "the broker keeps messages until the group has settled them",
                Rollout.ANY,
            )
            for scheme in ("sqlite", "memory", "amqp", "amqps")
        },
    ),
    "retry.fewer": safe(
        "failed messages are dead-lettered or dropped earlier",
        "a message with more failed runs than the new limit is dead-lettered after its next one",
    ),
    "retry.fewer.dropped": Rule(
        "the same with ON_EXHAUSTED_DROP",
        loses(
            "a message with more failed runs than the new limit is dropped after its next one",
            Rollout.DRAIN,
        ),
    ),
    "backoff.changed": safe("waits between retries change", "waits that have begun do not change"),
    "timeout.changed": safe(
        "the timeout changes", "a run that takes too long is a failed run and is retried"
    ),
    "timeout.shorter.dropped": Rule(
        "the timeout becomes shorter with ON_EXHAUSTED_DROP",
        loses("messages whose runs take longer are dropped after their last attempt", Rollout.KEEP),
    ),
    "dead_letter.moved": Rule(
        "dead letters go to another topic",
        Consequence(
            Verdict.DRAIN,
            "the new version does not list or replay dead letters of the old topic",
            Rollout.REPLAY,
        ),
    ),
    "exhausted.dropped": Rule(
        "messages are dropped, not dead-lettered, after their last attempt",
        loses("they are acknowledged, counted and logged", Rollout.KEEP),
    ),
    "exhausted.kept": safe(
        "messages are dead-lettered, not dropped, after their last attempt", "the broker keeps them"
    ),
    "exhausted.blocked": safe(
        "messages that fail are retried for ever",
        "their key or partition waits, and readiness is red",
    ),
    "exhausted.unblocked": Rule(
        "ordered messages are dead-lettered, not retried for ever",
        loses_order(
            "later messages of the key or partition are handled before a replayed one",
            Rollout.KEEP,
        ),
    ),
    "exhausted.unblocked.unordered": safe(
        "unordered messages are dead-lettered, not retried for ever", "they wait for a replay"
    ),
}

_PUBLISHING = {
    "publication.added": safe(
        "another message is published", "existing consumers do not depend on it"
    ),
    "publication.moved": Rule(
        "a message is published to another topic",
        consumers_first("consumers of the old topic get no more messages"),
    ),
    "publication.moved.consumed": Rule(
        "the same, and the contract still consumes it from the old topic",
        loses("its handlers there get no more messages", Rollout.KEEP),
    ),
    "publication.removed": Rule(
        "a message is no longer published",
        consumers_first("consumers in other contracts no longer get it"),
    ),
    "publication.removed.consumed": Rule(
        "the same, and the contract still consumes it",
        loses("its handlers get no more messages", Rollout.KEEP),
    ),
    "type.renamed": Rule(
        "a published message has another type",
        consumers_first("consumers that know only the old type skip or dead-letter it"),
    ),
    "payload.incompatible": Rule(
        "a field has another number or another form on the wire",
        loses(
            "one version cannot read values that the other wrote; `buf breaking` lists all such"
            " changes",
            Rollout.DRAIN,
        ),
    ),
    "payload.renamed": Rule(
        "a field of a message that is encoded as JSON has another name",
        loses("one version cannot read values that the other wrote", Rollout.DRAIN),
    ),
    "encoding.changed": safe(
        "the encoding changes", "consumers decode each message by its content type"
    ),
    "attributes.changed": safe(
        "`source`, `subject` or `data_schema` changes", "delivery does not read them"
    ),
    "sensitive.changed": safe(
        "fields become sensitive, or are no longer sensitive",
        "delivery does not change; values of fields that are not sensitive reach logs and pages",
    ),
}

_SETTINGS = {
    "namespace.changed": Rule(
        "the setting `namespace` changes",
        drain(
            "every topic and group gets another name; the new version does not read the old ones"
        ),
    ),
    "transport.changed": Rule(
        "the setting `transport` names another broker",
        drain("waiting messages stay at the old broker"),
    ),
    "ladder.changed": safe(
        "the setting `retry_ladder` changes", "queues and topics of the old ladder are still read"
    ),
}

#: All rules by the name of the change.
RULES: Mapping[str, Rule] = {**_SUBSCRIPTIONS, **_ORDER, **_FAILURES, **_PUBLISHING, **_SETTINGS}
