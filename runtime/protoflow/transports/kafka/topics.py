"""The topics of a subscription: its own, and the retry topics of its group."""

from __future__ import annotations

from collections.abc import Sequence

from protoflow.transport import SubscriptionSettings
from protoflow.transports.kafka import names


class SubscriptionTopics:
    """Physical names, and what each is for.

    Attributes:
        main: the topic.
        rungs: retry topics and the seconds that messages rest there; 0 is for replays.
    """

    def __init__(self, settings: SubscriptionSettings, ladder: Sequence[float]) -> None:
        self._settings = settings
        self.main = names.physical(settings.topic)
        self.rungs: dict[str, float] = {}
        if not settings.broadcast:
            steps = (0.0, *ladder) if settings.defers else (0.0,)
            self.rungs = {
                names.retry_topic(settings.topic, settings.group, step): step for step in steps
            }

    @property
    def all(self) -> tuple[str, ...]:
        """All topics that are consumed."""
        return (self.main, *self.rungs)

    @property
    def dead(self) -> tuple[str, ...]:
        """The dead-letter topics."""
        return tuple(names.physical(topic) for topic in self._settings.dead_letter_topics)

    def retry(self, step: float) -> str:
        """The retry topic of a rung."""
        return names.retry_topic(self._settings.topic, self._settings.group, step)

    def hold(self, topic: str) -> float:
        """How long messages of a topic rest before they are handed out."""
        return self.rungs.get(topic, 0.0)

    def shard(self, topic: str, partition: int) -> str | int:
        """How deliveries name a partition: by its number; in retry topics after the rung."""
        if topic == self.main:
            return partition
        return f"retry.{names.seconds(self.rungs[topic])}/{partition}"
