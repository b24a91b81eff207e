"""A queue of other programs as the source of a topic."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiobotocore.session import get_session
from protoflow import wire

from tests.transports import source_walk
from tests.transports.source_walk import Walk


class ForeignQueue:
    """A queue with a redrive policy of its owner."""

    def __init__(self, sqs: Any, sns: Any) -> None:
        self.name = f"Legacy_Orders-{uuid.uuid4().hex[:8]}"
        self.sqs, self.sns = sqs, sns
        self.url = ""

    async def create(self) -> None:
        dead = await self.sqs.create_queue(QueueName=f"{self.name}-dlq")
        target = f"arn:aws:sqs:us-east-1:123456789012:{self.name}-dlq"
        redrive = {"deadLetterTargetArn": target, "maxReceiveCount": "7"}
        made = await self.sqs.create_queue(
            QueueName=self.name,
            Attributes={"VisibilityTimeout": "11", "RedrivePolicy": json.dumps(redrive)},
        )
        self.url, self._dead = made["QueueUrl"], dead["QueueUrl"]

    @property
    def source(self) -> Mapping[str, str]:
        return {"name": self.name}

    async def publish(
        self, payload: bytes, content_type: str | None, headers: Mapping[str, str]
    ) -> None:
        named = {**headers, **({"content-type": content_type} if content_type else {})}
        try:
            body = payload.decode()
            if not body.isprintable():
                raise ValueError
        except ValueError:  # SQS takes text only
            body = base64.b64encode(payload).decode()
            named["content-transfer-encoding"] = "base64"
        attributes = {
            name: {"DataType": "String", "StringValue": value} for name, value in named.items()
        }
        await self.sqs.send_message(
            QueueUrl=self.url, MessageBody=body, MessageAttributes=attributes
        )

    async def attributes(self) -> dict[str, str]:
        found = await self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])
        return dict(found["Attributes"])

    async def topology(self) -> Any:
        found = await self.attributes()
        return {name: text for name, text in found.items() if not name.startswith("Approximate")}

    async def waiting(self) -> int:
        found = await self.attributes()
        return sum(int(text) for name, text in found.items() if name.startswith("ApproximateNumb"))


@pytest.fixture
async def place(url: str) -> AsyncIterator[ForeignQueue]:
    endpoint = f"http://{urlsplit(url).netloc.rpartition('@')[2]}"
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                get_session().create_client(
                    service,
                    endpoint_url=endpoint,
                    region_name="us-east-1",
                    aws_access_key_id="test",
                    aws_secret_access_key="test",
                )
            )
            for service in ("sqs", "sns")
        ]
        place = ForeignQueue(*clients)
        await place.create()
        yield place


@pytest.fixture
def walk(url: str, place: ForeignQueue) -> Walk:
    return Walk(url, place, settings={"transport_options": {"wait_time": 1}})


async def test_foreign_messages_are_handled(walk: Walk) -> None:
    await source_walk.foreign_messages_are_handled(walk)


async def test_failures_are_retried_and_dead_lettered_beside(walk: Walk) -> None:
    await source_walk.failures_are_retried_and_dead_lettered_beside(walk)


async def test_topology_is_verified_and_published_to(walk: Walk, place: ForeignQueue) -> None:
    await source_walk.topology_is_verified_and_published_to(walk)
    topics = await place.sns.list_topics()
    assert f"{walk.namespace}..tasks".replace(".", "-") not in str(topics)


async def test_an_envelope_of_sns_is_no_message(walk: Walk, place: ForeignQueue) -> None:
    topic = (await place.sns.create_topic(Name=f"{place.name}-topic"))["TopicArn"]
    queue = (await place.attributes())["QueueArn"]
    await place.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    await place.sns.publish(TopicArn=topic, Message='{"number": 1}')
    async with walk.running() as service:
        _, (record,) = await walk.dead_letters(service, 1)
        await walk.settled()
    assert not walk.runs
    assert "RawMessageDelivery" in record.message.metadata[wire.PF_ERROR_MESSAGE]
    assert b'"Notification"' in (record.message.payload or b"")
