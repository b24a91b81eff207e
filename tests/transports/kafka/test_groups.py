"""Positions of a group while its coordinator cannot say them."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError, GroupLoadInProgressError
from aiokafka.protocol.api import Response
from aiokafka.protocol.commit import (
    OffsetFetchRequest,
    OffsetFetchResponse_v1,
    OffsetFetchResponse_v3,
)
from protoflow.contract.spec import Start
from protoflow.transports.kafka import groups
from protoflow.transports.kafka.groups import committed
from protoflow.transports.kafka.transport import KafkaTransport

from tests.transports.kafka.harness import (
    ack,
    join,
    opened,
    payloads,
    publish,
    settings,
    take,
    unique,
)

TP = TopicPartition("orders", 0)
_LOADING, _DENIED = GroupLoadInProgressError.errno, GroupAuthorizationFailedError.errno
#: What a coordinator says that does not know the group's positions yet.
LOADING = {
    "of the group": OffsetFetchResponse_v3(0, [], _LOADING),
    "of a partition": OffsetFetchResponse_v1([("orders", [(0, -1, "", _LOADING)])]),
}
KNOWN = OffsetFetchResponse_v3(0, [("orders", [(0, 7, "", 0), (1, -1, "", 0)])], 0)


class Admin:
    """An admin client of a coordinator that gives these answers, one after the other."""

    def __init__(self, *answers: Response) -> None:
        self.answers = list(answers)

    async def find_coordinator(self, group: str) -> int:
        return 1

    async def _send_request(self, request: OffsetFetchRequest, node: int) -> Response:
        return self.answers.pop(0)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_PAUSE", 0.0)


@pytest.mark.parametrize("loading", LOADING.values(), ids=LOADING)
async def test_a_coordinator_that_loads_is_asked_again(loading: Response) -> None:
    found: Any = await committed(Admin(loading, loading, KNOWN), "billing", [TP])
    assert {tp: offset for tp, (offset, _) in found.items()} == {TP: 7}


@pytest.mark.parametrize("loading", LOADING.values(), ids=LOADING)
async def test_one_that_never_answers_is_an_error_not_a_group_without_positions(
    loading: Response,
) -> None:
    with pytest.raises(GroupLoadInProgressError, match="no positions of group billing"):
        await committed(Admin(*[loading] * 20), "billing", [TP])


async def test_a_refusal_is_not_repeated() -> None:
    with pytest.raises(GroupAuthorizationFailedError):
        await committed(Admin(OffsetFetchResponse_v3(0, [], _DENIED)), "billing", [TP])


@pytest.mark.parametrize("start", [Start.EARLIEST, Start.LATEST])
async def test_a_group_goes_on_where_it_was_when_its_coordinator_still_loads(
    url: str, broker: KafkaTransport, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    topic = unique()
    wanted = settings(topic, start=start)
    subscription = await join(broker, wanted)
    await publish(broker, topic, b"0", b"1", b"2")
    await ack(subscription, *(await take(subscription, 3))[:2])
    await broker.close()

    async def load(self: AIOKafkaAdminClient, request: Any, node: int | None = None) -> Any:
        if isinstance(request, OffsetFetchRequest) and answers:
            return answers.pop()
        return await send(self, request, node)

    answers = [LOADING["of the group"]] * 4
    send = AIOKafkaAdminClient._send_request
    monkeypatch.setattr(AIOKafkaAdminClient, "_send_request", load)
    async with opened(url) as later:
        subscription = await join(later, wanted)
        assert not answers, "the coordinator was not asked"
        assert payloads(await take(subscription, 1)) == [b"2"]
