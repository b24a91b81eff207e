"""The topics of a subscription: its own, and the retry topics of its group."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from protoflow.contract import names as naming
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.kafka import names


class SubscriptionTopics:
    """The physical topics of a subscription, and their purposes.

    Attributes:
        main: the topic.
        rungs: retry topics, and the seconds that messages wait there; 0 is for replays.
        earlier: retry topics of an earlier ladder or policy. They are read as long as they exist,
            so that no message is lost by a deployment.
    """

    def __init__(
        self, settings: SubscriptionSettings, ladder: Sequence[float], existing: Iterable[str] = ()
    ) -> None:
        self._settings = settings
        source = settings.source
        self.main = names.physical(settings.topic) if source is None else source.name
        self.rungs: dict[str, float] = {}
        self.earlier: Collection[str] = ()
        if not settings.broadcast:
            steps = (0.0, *ladder) if settings.needs_broker_retry else (0.0,)
            self.rungs = {
                names.retry_topic(settings.topic, settings.group, step): step for step in steps
            }
            self.earlier = self._find_earlier(existing)

    def _find_earlier(self, existing: Iterable[str]) -> tuple[str, ...]:
        found = []
        family = names.family(self._settings.topic, self._settings.group)
        for name in sorted(name for name in existing if name.startswith(family)):
            step = names.step_of(name, self._settings.topic, self._settings.group)
            if step is not None and name not in self.rungs:
                self.rungs[name] = step
                found.append(name)
        return tuple(found)

    @property
    def all(self) -> tuple[str, ...]:
        """Returns all consumed topics."""
        return (self.main, *self.rungs)

    @property
    def replays(self) -> str:
        """The retry topic for replays, which has as many partitions as the topic."""
        return self.retry(0.0)

    @property
    def dead(self) -> tuple[str, ...]:
        """The dead-letter topics."""
        return tuple(names.physical(topic) for topic in self._settings.dead_letter_topics)

    def retry(self, step: float) -> str:
        """Returns the retry topic of a rung."""
        return names.retry_topic(self._settings.topic, self._settings.group, step)

    def hold(self, topic: str) -> float:
        """Returns the seconds that messages of a topic wait before they are handed out."""
        return self.rungs.get(topic, 0.0)

    def shard(self, topic: str, partition: int) -> str | int:
        """Returns the name of a partition in deliveries.

        It is the number of the partition; in retry topics the rung precedes it.
        """
        if topic == self.main:
            return partition
        return f"retry.{naming.seconds(self.rungs[topic])}/{partition}"
