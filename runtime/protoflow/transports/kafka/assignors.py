"""Assignors that give a topic and its retry topics to the same member.

Replays of ordered groups go to the partition of the retry topic that has the number of the
key's partition. In one process, lanes keep a replay and a live message of one key in order; in two
processes they could run at the same time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)


def keep_retries_beside(
    base: type[AbstractPartitionAssignor], mains: Mapping[str, str]
) -> type[AbstractPartitionAssignor]:
    """Returns an assignor like `base` that assigns retry topics with their main topic.

    The owner of a partition also gets the partitions of its retry topics with the same number.

    Args:
        base: an assignor of aiokafka.
        mains: the main topic of each retry topic.
    """

    class RetriesBeside(base):  # type: ignore[misc]  # a base that is chosen at run time
        """See `keep_retries_beside`."""

        name = f"protoflow-{base.name}"  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]  # as aiokafka's

        @classmethod
        def assign(
            cls, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
        ) -> dict[str, ConsumerProtocolMemberAssignment]:
            alone = {id: _without_retries(member, mains) for id, member in members.items()}
            dealt = super().assign(cluster, alone)
            return _with_retries(cluster, members, dealt, mains)

    return RetriesBeside


def _without_retries(
    member: ConsumerProtocolMemberMetadata, mains: Mapping[str, str]
) -> ConsumerProtocolMemberMetadata:
    """Returns the topics of a member without the retry topics of these topics."""
    topics = set(member.subscription)
    kept = [topic for topic in member.subscription if mains.get(topic) not in topics]
    return ConsumerProtocolMemberMetadata(member.version, kept, member.user_data)


def _with_retries(
    cluster: Any,
    members: Mapping[str, ConsumerProtocolMemberMetadata],
    dealt: Mapping[str, ConsumerProtocolMemberAssignment],
    mains: Mapping[str, str],
) -> dict[str, ConsumerProtocolMemberAssignment]:
    owners: dict[str, dict[int, str]] = defaultdict(dict)
    assigned: dict[str, dict[str, list[int]]] = {}
    for id, assignment in dealt.items():
        assigned[id] = {topic: list(numbers) for topic, numbers in assignment.assignment}
        for topic, numbers in assigned[id].items():
            owners[topic] |= dict.fromkeys(numbers, id)
    for topic in sorted(set(_retry_topics(members, mains))):
        readers = sorted(id for id, member in members.items() if topic in member.subscription)
        places = owners[mains[topic]]
        for number in sorted(cluster.partitions_for_topic(topic) or ()):
            owner = places.get(number % len(places)) if places else None
            # another version of the service, which does not read the retry topic
            if owner not in readers:
                owner = readers[number % len(readers)]
            assigned[owner].setdefault(topic, []).append(number)
    return {
        id: ConsumerProtocolMemberAssignment(
            dealt[id].version, sorted(topics.items()), dealt[id].user_data
        )
        for id, topics in assigned.items()
    }


def _retry_topics(
    members: Mapping[str, ConsumerProtocolMemberMetadata], mains: Mapping[str, str]
) -> Iterable[str]:
    for member in members.values():
        topics = set(member.subscription)
        yield from (topic for topic in topics if mains.get(topic) in topics)
