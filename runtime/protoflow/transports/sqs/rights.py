"""The rights that a service with a topology needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protoflow.transport.interface import Topology
from protoflow.transports.sqs.connection import AwsConnection
from protoflow.transports.sqs.policies import service_policy
from protoflow.transports.sqs.resources import Resources


def policy_of(
    connection: AwsConnection, resources: Resources, topology: Topology
) -> Mapping[str, Any]:
    """Returns the smallest policy of a service, whose topics and queues exist."""
    arn, names, sources = connection.arn, resources.names, resources.sources
    lasting = [each for each in topology.subscriptions if not each.broadcast]
    dead = {name for each in topology.subscriptions for name in each.dead_letter_topics}
    own = [arn("sqs", queue) for each in lasting for queue in resources.own_queues(each)]
    groups = [arn("sqs", resources.main_queue(each.topic, each.group)) for each in lasting]
    kept = [arn("sqs", names.dead_letters(topic)) for topic in dead]
    # groups may consume dead letters, too: then they are also published to a topic
    topics = {*topology.topics} | dead
    publishes = [resources.topic_arn(topic) for topic in topics if not sources.of(topic)]
    theirs = [arn("sqs", source.name) for topic in topics if (source := sources.of(topic))]
    replays = groups if connection.options.is_fifo else ()
    return service_policy(publishes, [*groups, *own], [*own, *kept, *replays, *theirs])
