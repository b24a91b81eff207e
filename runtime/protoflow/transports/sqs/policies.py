"""Policies: the right of a topic to send to a queue, and the rights that a service needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def queue_policy(queue_arn: str, topic_arn: str) -> str:
    """Returns the policy of a queue that lets one topic send to it, as JSON."""
    statement = {
        "Sid": "protoflow",
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic_arn}},
    }
    return json.dumps(_document(statement))


def allows(policy: str, topic_arn: str) -> bool:
    """Whether the policy of a queue names a topic, and not a longer name that begins with it."""
    return json.dumps(topic_arn) in policy


def service_policy(
    publishes: Iterable[str], consumes: Iterable[str], writes: Iterable[str]
) -> Mapping[str, Any]:
    """Returns the smallest policy of a service whose topics and queues exist.

    Args:
        publishes: ARNs of topics.
        consumes: ARNs of queues from which messages are received.
        writes: ARNs of queues to which messages are sent.
    """
    rights = {
        ("sns:Publish", "sns:GetTopicAttributes", "sns:ListSubscriptionsByTopic"): publishes,
        (
            "sqs:ReceiveMessage",
            "sqs:DeleteMessage",
            "sqs:ChangeMessageVisibility",
            "sqs:GetQueueAttributes",
            "sqs:GetQueueUrl",
        ): consumes,
        ("sqs:SendMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"): writes,
    }
    statements = [
        {"Effect": "Allow", "Action": [*actions], "Resource": sorted({*resources})}
        for actions, resources in rights.items()
    ]
    return _document(*(each for each in statements if each["Resource"]))


def _document(*statements: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"Version": "2012-10-17", "Statement": [*statements]}
