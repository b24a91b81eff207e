"""A Kafka of one's own, whose users may do only what docs/security.md grants them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shlex
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.admin import CreateAclsRequest, DescribeAclsRequest
from protoflow import wire
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import AuthenticationError, PublishError
from protoflow.message import Message
from protoflow.outcomes import RetryAfter
from protoflow.transport import Topology, TopologyMode

from tests.acceptance.contract import pb
from tests.acceptance.harness import Harness, handler, task_metadata, tasks
from tests.acceptance.targets import TARGETS
from tests.brokers import skip_or_fail, start_own
from tests.brokers.base import BrokerUnavailable
from tests.brokers.kafka import KafkaBroker
from tests.transports.kafka.harness import join, opened, publish, settings, unique

pytestmark = pytest.mark.timeout(180)

DOCUMENT = Path(__file__).parents[3] / "docs" / "security.md"
#: Numbers of Kafka's protocol, for what `kafka-acls.sh` takes for each resource.
RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional_id": 5}
OPERATIONS = {
    "Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Alter": 7, "Describe": 8,
    "DescribeConfigs": 10, "IdempotentWrite": 12,
}  # fmt: skip
FITTING = {
    "topic": {"Read", "Write", "Create", "Delete", "Alter", "Describe", "DescribeConfigs"},
    "group": {"Read", "Describe", "Delete"},
    "cluster": {"Create", "Alter", "Describe", "DescribeConfigs", "IdempotentWrite"},
    "transactional_id": {"Write", "Describe"},
}
PATTERNS = {"literal": 3, "prefixed": 4}
CLUSTER = "kafka-cluster"
#: What stands in the document for names of the contract.
TOPIC, OUTPUT, GROUP = "orders.placed", "receipts.sent", "billing"
MEMBERS = "suite.v1.Transform"
QUICK = {"retry_in_place": 0.0, "retry_ladder": (0.5,)}
#: As large as a topic takes it with its headers, so that hop state needs room beside it.
LARGE = bytes(1024 * 1024 - 600)
TWICE = DeliveryPolicy(retry=RetryPolicy(max_attempts=2))


def documented() -> dict[str, list[argparse.Namespace]]:
    """The lines for `kafka-acls.sh`, by the comment above them."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", action="append", required=True, choices=OPERATIONS)
    parser.add_argument("--topic")
    parser.add_argument("--group")
    parser.add_argument("--transactional-id")
    parser.add_argument("--cluster", action="store_const", const=CLUSTER)
    parser.add_argument("--resource-pattern-type", default="literal", choices=PATTERNS)
    section = DOCUMENT.read_text().partition("\n## Kafka\n")[2].partition("\n## ")[0]
    found: dict[str, list[argparse.Namespace]] = {}
    comment = ""
    for line in "".join(re.findall(r"```\n(.*?)```", section, re.DOTALL)).splitlines():
        if line.startswith("#"):
            comment = line
        else:
            found.setdefault(comment, []).append(parser.parse_args(shlex.split(line)))
    return found


def lines(*, optional: bool) -> list[argparse.Namespace]:
    """The lines that everybody needs, or those that are only for some."""
    return [
        line
        for comment, found in documented().items()
        if ("optional" in comment) is optional
        for line in found
    ]


class Server:
    """A broker, and what its operator does."""

    def __init__(self, url: str, sasl_url: str) -> None:
        self.url = url
        self.servers = url.partition("://")[2]
        self._sasl = sasl_url.rpartition("@")[2]

    def url_of(self, user: str) -> str:
        return f"kafka://{user}:{user}@{self._sasl}"

    def login(self, user: str) -> dict[str, Any]:
        """The arguments of a client of aiokafka that logs in as the user."""
        return {
            "bootstrap_servers": self._sasl,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": user,
            "sasl_plain_password": user,
        }

    async def grant(self, wanted: list[argparse.Namespace], names: dict[str, str]) -> None:
        """Does what `kafka-acls.sh --add` would do, for these names instead of the document's."""
        async with self.admin() as admin:
            for acl in [acl for line in wanted for acl in acls(line, names)]:
                answer: Any = await admin._send_request(CreateAclsRequest(*acl))
                assert [item[0] for item in answer.creation_responses] == [0], answer
                await in_force(admin, acl)

    async def has_messages(self, topic: str) -> bool:
        """Whether anything was ever published to a topic."""
        reader = AIOKafkaConsumer(topic, bootstrap_servers=self.servers)
        await reader.start()
        try:
            ends = await reader.end_offsets(sorted(reader.assignment()))
            return any(ends.values())
        finally:
            await reader.stop()

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """A client that may do everything."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.servers)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()


def acls(line: argparse.Namespace, names: dict[str, str]) -> Iterator[tuple[Any, ...]]:
    """One ACL for each operation on each resource of a line."""
    pattern = "|".join(map(re.escape, names))
    for resource, number in RESOURCES.items():
        if (name := getattr(line, resource)) is None:
            continue
        physical = re.sub(pattern, lambda found: names[found[0]], name)
        for operation in line.operation:
            assert operation in FITTING[resource], f"{operation} means nothing for a {resource}"
            kind = PATTERNS[line.resource_pattern_type]
            yield (
                number, physical, kind, line.allow_principal, "*", OPERATIONS[operation], 3
            )  # fmt: skip


async def in_force(admin: AIOKafkaAdminClient, acl: tuple[Any, ...]) -> None:
    """Waits until the broker knows an ACL that its controller has."""
    async with asyncio.timeout(30):
        while True:
            answer: Any = await admin._send_request(DescribeAclsRequest(*acl))
            if answer.resources:
                return
            await asyncio.sleep(0.02)


async def has_partitions(admin: AIOKafkaAdminClient, topic: str, count: int) -> None:
    """Waits until the broker knows so many partitions of a topic."""
    async with asyncio.timeout(30):
        while len((await admin.describe_topics([topic]))[0]["partitions"]) != count:
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(start_own(KafkaBroker(users=("other", "billing"))))
        except BrokerUnavailable as error:
            skip_or_fail("kafka", error)
        yield Server(broker.url, broker.details["sasl_url"])


@pytest.fixture
async def harness(server: Server, tmp_path: Path) -> AsyncIterator[Harness]:
    """A namespace of its own, seen by an operator who may do everything."""
    harness = Harness(TARGETS["kafka"], server.url, tmp_path)
    await harness.open()
    yield harness
    await harness.close()


def names_in(harness: Harness) -> dict[str, str]:
    """What the names of the document are in the namespace of a test."""
    return {
        f"{TOPIC}..{GROUP}..dead": harness.dead_letter_topic(group=MEMBERS),
        TOPIC: harness.physical("tasks"),
        OUTPUT: harness.physical("done"),
        GROUP: harness.physical(MEMBERS),
    }


@contextlib.asynccontextmanager
async def producer(server: Server, **arguments: Any) -> AsyncIterator[AIOKafkaProducer]:
    """A foreign client that publishes."""
    made = AIOKafkaProducer(**server.login("other"), **arguments)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def refused(attempt: Awaitable[object], error: type[Exception]) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(error):
            await attempt


class Work:
    """A handler: number 1 works, everything else waits and fails."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []

    async def __call__(self, task: Any, context: Any) -> Any:
        self.runs.append((task.number, context.attempt))
        if task.number != 1:
            raise RetryAfter(0.5, "not yet")
        return pb.Done(number=10, key=task.key)


async def test_a_publisher_reaches_its_topic_and_no_place_of_a_group(
    server: Server, harness: Harness
) -> None:
    await server.grant(lines(optional=False), names_in(harness))
    topic, group = harness.physical("tasks"), harness.physical(MEMBERS)
    work = Work()
    async with harness.running(handler("Transform", work), **QUICK):
        forged = [
            *((name, value.encode()) for name, value in task_metadata().items()),
            (wire.PF_GROUP, group.encode()),
            (wire.PF_ATTEMPT, b"2"),
            (wire.PF_DUE, b"99999999999"),
            (wire.PF_FIRST_FAILURE, b"1"),
        ]
        for idempotent in (True, False):
            async with producer(server, enable_idempotence=idempotent) as foreign:
                payload = pb.Task(number=1).SerializeToString()
                await foreign.send_and_wait(topic, payload, headers=forged)
                for place in (f"{topic}..{group}..retry.{step}" for step in ("0", "0.5")):
                    await refused(
                        foreign.send_and_wait(place, payload, headers=forged),
                        TopicAuthorizationFailedError,
                    )
                await refused(
                    foreign.send_and_wait(harness.dead_letter_topic(group=MEMBERS), payload),
                    TopicAuthorizationFailedError,
                )
        await harness.until(
            lambda: len(work.runs) >= 2, within=30, what="what it may publish comes"
        )
    assert work.runs == [(1, 1), (1, 1)], "what it says of attempts is not believed"


async def test_a_publisher_moves_no_position_and_takes_no_partition(
    server: Server, harness: Harness
) -> None:
    await server.grant(lines(optional=False), names_in(harness))
    topic, group = harness.physical("tasks"), harness.physical(MEMBERS)
    await harness.prepare(handler("Transform", Work()), **QUICK)
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(**server.login("other"), group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([partition])
        await refused(consumer.commit({partition: (1, "")}), GroupAuthorizationFailedError)
    finally:
        await consumer.stop()
    for id in (f"{group}/{topic}/0", "of-its-own"):
        taker = AIOKafkaProducer(**server.login("other"), transactional_id=id)
        await refused(taker.start(), TransactionalIdAuthorizationFailed)
        await taker.stop()


@pytest.mark.parametrize("atomic", [False, True], ids=["plain", "atomic"])
async def test_a_service_needs_the_documented_rights_and_no_more(
    server: Server, harness: Harness, atomic: bool
) -> None:
    await server.grant(lines(optional=False), names_in(harness))
    work = Work()
    policy = DeliveryPolicy(retry=TWICE.retry, atomic=atomic)
    wanted = {**QUICK, "transport": server.url_of("billing"), "policy": policy}
    async with harness.running(handler("Transform", work), **wanted) as service:
        watcher = await harness.watch("done")
        await harness.send(1)
        [large] = await harness.producer.publish_task_many([pb.Task(number=2, blob=LARGE)])
        (dead_letter,) = await harness.dead_letter_messages(
            1, harness.dead_letter_topic(group=MEMBERS), within=20
        )
        assert tasks(await watcher.exactly(1, within=20)) == [10]
        await harness.settled(service)
    assert sorted(work.runs) == [(1, 1), (2, 1), (2, 2)]
    assert pb.Task.FromString(dead_letter.payload or b"").blob == LARGE
    assert dead_letter.id == large
    assert dead_letter.metadata.get(wire.PF_ATTEMPT) == "2", "hop state fits beside it"
    rung = f"{harness.physical('tasks')}..{harness.physical(MEMBERS)}..retry.0.5"
    assert await server.has_messages(rung), "it waited at the broker"
    again = Work()
    async with harness.running(handler("Transform", again), **wanted):
        await harness.quiet()
    assert again.runs == [], "its positions were committed"


async def test_what_is_optional_is_refused_without_its_line(server: Server) -> None:
    topic, sent = unique(), unique("sent")
    names = {TOPIC: topic, OUTPUT: sent}
    dead_letters = f"{topic}..{GROUP}..dead"
    topology = Topology(subscriptions=(settings(topic),), topics=(sent,))
    await server.grant(lines(optional=False), names)
    user = server.url_of("billing")
    async with opened(server.url) as operator, opened(user, require_subscriber=True) as billing:
        await billing.ensure(topology, TopologyMode.CREATE)
        await (await join(operator, settings(sent, "mailing"))).stop()
        async with server.admin() as admin:
            await admin.create_partitions({topic: NewPartitions(total_count=2)})
            await has_partitions(admin, topic, 2)
        with pytest.raises(AuthenticationError, match="a right is missing"):
            await billing.ensure(topology, TopologyMode.CREATE)
        await publish(operator, dead_letters, b"dead")
        with pytest.raises(AuthenticationError, match="a right is missing"):
            await dead_letters_of(billing).list(dead_letters)
        message = Message(id="m", topic=sent, payload=b"x")
        assert isinstance((await billing.submit([message]))[0], PublishError)

        await server.grant(lines(optional=True), names)
        await billing.ensure(topology, TopologyMode.CREATE)
        async with server.admin() as admin:
            await has_partitions(admin, f"{topic}..{GROUP}..retry.0", 2)
        assert len(await dead_letters_of(billing).list(dead_letters)) == 1
        assert await dead_letters_of(billing).purge(dead_letters) == 1
        assert await dead_letters_of(billing).count(dead_letters) == 0
        assert await billing.submit([message]) == [None]
