"""The classes of changes, and the rollouts that avoid their effects."""

from __future__ import annotations

import enum


class Verdict(enum.StrEnum):
    """The effect of a change in a rolling deployment; later members are worse."""

    SAFE = "safe"
    CONSUMERS_FIRST = "consumers first"
    PRODUCERS_FIRST = "producers first"
    DRAIN = "drain"
    LOSES_ORDER = "loses order"
    LOSES_MESSAGES = "loses messages"

    @property
    def severity(self) -> int:
        """Returns 0 for safe changes, and higher numbers for worse ones."""
        return list(Verdict).index(self)


#: Descriptions of the classes, for tables.
MEANINGS = {
    Verdict.SAFE: "old and new processes run together in any order: no message is lost, and the "
    "order that both versions promise is kept",
    Verdict.CONSUMERS_FIRST: "safe once every consumer runs the new version before a "
    "producer runs it",
    Verdict.PRODUCERS_FIRST: "safe once every producer runs the new version, and messages of old "
    "producers are handled, before a consumer runs it",
    Verdict.DRAIN: "messages or dead letters stay at the broker, and only the old version "
    "can read them",
    Verdict.LOSES_ORDER: "messages of one key or partition are handled out of order",
    Verdict.LOSES_MESSAGES: "messages or dead letters are acknowledged or deleted unhandled",
}


class Rollout(enum.StrEnum):
    """A way to roll out a change without loss."""

    ANY = "any"
    CONSUMERS_FIRST = "consumers first"
    PRODUCERS_FIRST = "producers first"
    DRAIN = "drain"
    REPLAY = "replay"
    KEEP = "keep"

    @property
    def steps(self) -> tuple[str, ...]:
        """Returns the steps in order."""
        return _STEPS[self]


_STEPS = {
    Rollout.ANY: ("Deploy consumers and producers in any order.",),
    Rollout.CONSUMERS_FIRST: (
        "Deploy all consumers, also those of other contracts that read the topic.",
        "When no old consumer runs, deploy the producers.",
    ),
    Rollout.PRODUCERS_FIRST: (
        "Deploy all producers, also those of other contracts that publish to the topic.",
        "Let the old consumers handle all messages, until `protoflow lag` shows 0.",
        "Replay or purge their dead letters: `protoflow dlq replay`.",
        "Deploy the consumers.",
    ),
    Rollout.DRAIN: (
        "Stop the producers.",
        "Let the old consumers handle all messages, until `protoflow lag` shows 0.",
        "Replay or purge their dead letters: `protoflow dlq replay`.",
        "Stop the old consumers.",
        "Start the new consumers, then the new producers.",
    ),
    Rollout.REPLAY: (
        "Deploy consumers and producers in any order.",
        "When no old consumer runs, empty the old dead-letter topic: `protoflow dlq replay`.",
    ),
    Rollout.KEEP: (
        "No rollout avoids this, because the new contract demands it.",
        "Keep the old value, or check first that the loss is acceptable.",
    ),
}
