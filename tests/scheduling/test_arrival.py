"""Arrival: every delivery becomes a job in its lane, or is settled; nothing it holds can raise."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow import wire
from protoflow.contract.spec import DeliveryPolicy, Ordering, UnhandledTypes
from protoflow.message import Delivery
from protoflow.scheduling.admission import Admission
from protoflow.scheduling.arrival import Arrival
from protoflow.scheduling.job import Job
from protoflow.scheduling.lanes import Lanes
from protoflow.scheduling.outcome_applier import OutcomeApplier
from protoflow.scheduling.router import Router
from protoflow.scheduling.turns import Turns
from protoflow.transport.interface import SubscriptionSettings

from tests.scheduling.fakes import (
    RecordingHost,
    RecordingSettler,
    RecordingSubmitter,
    message_of,
    route_of,
    spec_of,
)

PLAIN = {wire.CE_TYPE: "a.B", wire.CONTENT_TYPE: wire.PROTOBUF}


class ReadyJobs:
    """The workers: they keep what is ready."""

    def __init__(self) -> None:
        self.ready: deque[Job] = deque()
        self.put = self.ready.append

    def wake(self) -> None:
        pass


class SuspectJobs:
    """Keeps those that may kill the process."""

    def __init__(self) -> None:
        self.put_in: list[Job] = []

    def put(self, job: Job) -> None:
        self.put_in.append(job)


class Arriving:
    """An arrival with real lanes, turns, admission and outcomes."""

    def __init__(
        self, ordering: Ordering = Ordering.NONE, delivery: DeliveryPolicy | None = None
    ) -> None:
        self.spec = spec_of(delivery)
        self.route = route_of(self.spec)
        self.host = RecordingHost()
        self.settler = RecordingSettler()
        self.submitter = RecordingSubmitter()
        self.workers = ReadyJobs()
        self.suspects = SuspectJobs()
        submitter: Any = self.submitter
        settler: Any = self.settler
        workers: Any = self.workers
        suspects: Any = self.suspects
        host: Any = self.host
        subscription: Any = None
        self.applier = OutcomeApplier(host, submitter, subscription, settler, ordering)
        self.lanes = Lanes()
        admission = Admission("billing", self.applier, suspects)
        self.turns = Turns(self.lanes, workers, admission)
        host.end_turn = self.turns.end
        settings = SubscriptionSettings(
            name="orders/billing", topic="orders", group="billing", ordering=ordering
        )
        router = Router({"a.B": self.route}, (self.route,), {})
        self.arrival = Arrival(router, self.lanes, settings, self.applier, workers, self.turns)

    def accept(self, id: str, **fields: Any) -> None:
        key = fields.pop("key", None)
        payload = fields.pop("payload", b"x")
        metadata = fields.pop("metadata", PLAIN)
        message = message_of(id, key=key, payload=payload, metadata=metadata)
        self.arrival.accept(Delivery(message=message, position=id, **fields))

    @property
    def ready(self) -> list[str]:
        return [job.message.id for job in self.workers.ready]


async def test_a_plain_event_is_ready_at_once() -> None:
    made = Arriving()
    made.accept("1")
    assert made.ready == ["1"]


async def test_a_message_that_names_no_type_is_of_the_only_type() -> None:
    made = Arriving()
    made.accept("1", metadata={})
    assert made.ready == ["1"]


@pytest.mark.parametrize("unhandled", UnhandledTypes)
async def test_an_unknown_type_is_skipped_or_dead_lettered(unhandled: UnhandledTypes) -> None:
    made = Arriving(delivery=DeliveryPolicy(unhandled=unhandled))
    made.accept("1", metadata={**PLAIN, wire.CE_TYPE: "x.Y"})
    await made.applier.dead_letters.finished()
    assert made.ready == []
    assert made.settler.acknowledged == ["1"]
    assert made.spec.stats.unhandled == 1
    dead_lettered = unhandled is UnhandledTypes.DEAD_LETTER
    assert len(made.submitter.published) == dead_lettered


async def test_an_unreadable_delivery_is_dead_lettered() -> None:
    made = Arriving()
    made.accept("1", unreadable="bad headers")
    await made.applier.dead_letters.finished()
    assert made.submitter.published[0].metadata[wire.PF_ERROR_CLASS] == "decode"
    assert made.settler.acknowledged == ["1"]


async def test_a_tombstone_is_settled_in_its_turn() -> None:
    made = Arriving(Ordering.PER_KEY)
    made.accept("1", key=b"k")
    made.accept("2", key=b"k", payload=None)
    made.accept("3", key=b"k")
    assert (made.ready, made.settler.acknowledged) == (["1"], [])
    made.turns.end(made.workers.ready.popleft())
    assert (made.ready, made.settler.acknowledged) == (["3"], ["2"])
    assert made.spec.stats.tombstones == 1


async def test_a_suspect_keeps_its_turn_and_waits_for_its_run_alone() -> None:
    made = Arriving(Ordering.PER_KEY)
    made.accept("1", key=b"k", deliveries=made.route.suspect_at)
    made.accept("2", key=b"k")
    assert made.ready == []
    assert [job.message.id for job in made.suspects.put_in] == ["1"]


async def test_a_retry_that_is_not_due_waits_and_keeps_its_failed_runs() -> None:
    made = Arriving()
    metadata = {
        **PLAIN, wire.PF_GROUP: "billing", wire.PF_ATTEMPT: "2", wire.PF_DUE: "1003.000",
    }  # fmt: skip
    made.accept("1", metadata=metadata, own_place=True)
    made.accept("2", metadata=metadata)  # hop state of a place that is not the runtime's
    assert made.ready == ["2"]
    assert made.workers.ready[0].delivery.failures == 0
    (waiting,) = made.applier.take_waiting(lambda _job: True)
    assert (waiting.message.id, waiting.delivery.failures) == ("1", 2)


async def test_what_makes_accept_raise_is_dead_lettered_and_nothing_else() -> None:
    made = Arriving()
    delivery = Delivery(message=message_of("1"), position="1")
    made.arrival.refuse(delivery, RuntimeError("a bug"))
    await made.applier.dead_letters.finished()
    assert made.settler.acknowledged == ["1"]
    assert made.submitter.published[0].metadata[wire.PF_ERROR_CLASS] == "stub"


KINDS = st.sampled_from(["plain", "tombstone", "suspect", "unknown"])
ARRIVALS = st.lists(st.tuples(KINDS, st.sampled_from([b"a", b"b", None])), max_size=25)


@given(ARRIVALS)
def test_each_key_runs_in_order_and_no_message_is_forgotten(
    arrivals: list[tuple[str, bytes | None]],
) -> None:
    async def run() -> None:
        made = Arriving(Ordering.PER_KEY)
        ran: dict[bytes | None, list[int]] = {}
        fields: dict[str, dict[str, Any]] = {
            "plain": {}, "tombstone": {"payload": None},
            "suspect": {"suspect": True}, "unknown": {"metadata": {**PLAIN, wire.CE_TYPE: "x.Y"}},
        }  # fmt: skip
        for index, (kind, key) in enumerate(arrivals):
            made.accept(str(index), key=key, **fields[kind])
        while made.workers.ready or made.suspects.put_in:
            job = (
                made.workers.ready.popleft() if made.workers.ready else made.suspects.put_in.pop(0)
            )
            ran.setdefault(job.message.key, []).append(int(job.message.id))
            if job.lane is not None:
                made.turns.end(job)
        for key in (b"a", b"b"):
            expected = [
                index for index, (kind, at) in enumerate(arrivals)
                if at == key and kind in ("plain", "suspect")
            ]  # fmt: skip
            assert ran.get(key, []) == expected
        settled = [
            str(index) for index, (kind, _) in enumerate(arrivals)
            if kind in ("tombstone", "unknown")
        ]  # fmt: skip
        assert sorted(made.settler.acknowledged, key=int) == settled
        assert len(made.lanes) == 0

    asyncio.run(run())
