"""DeadLetters over a store: filters, pages, order of keys, and what a failure leaves behind."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow import wire
from protoflow.errors import (
    DeadLetterNotFoundError,
    NotReplayableError,
    PublishError,
    PublishRefusedError,
    ReplayError,
    TransportError,
)
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transport.kit.dead_letter_selection import DeadLetterFilter
from protoflow.transport.kit.dead_letters import DeadLetters
from protoflow.transport.kit.replay import (
    DeadLetterSources,
    check_names,
    number_of,
    replay_in_order,
)

DEAD = "orders..billing..dead"

#: What happens to a dead letter that is replayed.
GOOD, FAILS, REFUSED, UNREPLAYABLE, NOT_REMOVED, GONE = range(6)


class Store:
    """A store in memory. `fates` says by id what happens to a dead letter that is replayed."""

    def __init__(self) -> None:
        self.records: dict[int, DeadLetterRecord] = {}
        self.published: list[str] = []
        self.fates: dict[str, int] = {}
        self.sources = DeadLetterSources()
        self.largest_take = 0
        self.reads = -1  # so many takes work
        self._numbers = itertools.count(1)

    def add(self, id: str, **fields: Any) -> DeadLetterRecord:
        number = next(self._numbers)
        metadata = {
            wire.PF_ORIGINAL_TOPIC: "orders",
            wire.PF_GROUP: "billing",
            wire.PF_ATTEMPT: "3",
            **fields.pop("metadata", {}),
        }
        message = Message(
            id=id, topic=DEAD, payload=b"", metadata=metadata, key=fields.pop("key", None)
        )
        record = DeadLetterRecord(message=message, position=str(number), time=float(number))
        self.records[number] = record
        return record

    @property
    def ids(self) -> list[str]:
        return [record.message.id for record in self.records.values()]

    async def count(self, topic: str) -> int:
        return len(self.records)

    @asynccontextmanager
    async def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator[Scan]:
        first = number_of(after)
        yield Scan(self, [number for number in self.records if number > first])

    async def clear(self, topic: str) -> int:
        count = len(self.records)
        self.records.clear()
        return count


class Scan:
    def __init__(self, store: Store, numbers: list[int]) -> None:
        self.store = store
        self.numbers = numbers

    async def take(self, limit: int) -> Sequence[DeadLetterRecord]:
        self.store.largest_take = max(self.store.largest_take, limit)
        if self.store.reads == 0:
            raise TransportError("the connection was lost")
        self.store.reads -= 1
        taken, self.numbers = self.numbers[:limit], self.numbers[limit:]
        return [self.store.records[number] for number in taken if number in self.store.records]

    async def replay(
        self, records: Sequence[DeadLetterRecord], *, to_origin: bool
    ) -> Sequence[Exception | None]:
        fates = self.store.fates

        async def address(record: DeadLetterRecord) -> Message:
            if fates.get(record.message.id) == UNREPLAYABLE:
                raise NotReplayableError("it names no origin")
            message, _ = self.store.sources.replayed(record, to_origin=to_origin)
            return message

        async def publish(
            chosen: Sequence[DeadLetterRecord], messages: Sequence[Message]
        ) -> Sequence[PublishError | None]:
            keys = [message.key for message in messages if message.key is not None]
            assert len({*keys}) == len(keys), "one message of a key is under way"
            results: list[PublishError | None] = []
            for record, message in zip(chosen, messages, strict=True):
                assert message.topic == (record.destination or "orders")
                assert message.id == record.message.id
                fate = fates.get(message.id, GOOD)
                if fate == FAILS:
                    results.append(PublishError("the broker is full"))
                elif fate == REFUSED:
                    results.append(PublishRefusedError("it is too large"))
                else:
                    self.store.published.append(message.id)
                    results.append(None)
            await asyncio.sleep(0)
            return results

        return await replay_in_order(records, address, publish, self.remove)

    async def remove(self, records: Sequence[DeadLetterRecord]) -> None:
        for record in records:
            if self.store.fates.get(record.message.id) == NOT_REMOVED:
                raise TransportError("the connection was lost")
        for record in records:
            self.store.records.pop(int(record.position), None)


def run(body: Callable[[], Any]) -> None:
    asyncio.run(body())


KEYS = st.sampled_from([None, b"a", b"b", b"c"])
DEAD_LETTERS = st.lists(
    st.tuples(KEYS, st.sampled_from([GOOD, GOOD, GOOD, FAILS, REFUSED, UNREPLAYABLE])),
    max_size=250,
)


@given(DEAD_LETTERS, st.booleans())
def test_a_replay_keeps_the_order_of_each_key_and_accounts_for_all(
    dead_letters: list[tuple[bytes | None, int]], by_id: bool
) -> None:
    async def body() -> None:
        store = Store()
        for number, (key, fate) in enumerate(dead_letters):
            store.add(str(number), key=key)
            store.fates[str(number)] = fate
        ids = [str(number) for number in range(len(dead_letters))]
        left: dict[str, Exception] = {}
        stopped = False
        try:
            replayed = await DeadLetters(store).replay(DEAD, ids if by_id else None)
        except ReplayError as error:
            replayed, left = error.replayed, error.left
            stopped = error.__cause__ is not None
        assert replayed == len(store.published)
        assert sorted(store.ids, key=int) == store.ids, "the others keep their places"
        assert {*store.published} | {*store.ids} == {*ids}, "none is lost"
        assert not {*store.published} & {*store.ids}, "none is there twice"
        if not stopped:
            assert left.keys() == {*store.ids}, "all that are left are named"
        for key in (b"a", b"b", b"c"):
            mine = [str(number) for number, (other, _) in enumerate(dead_letters) if other == key]
            gone = [id for id in store.published if id in mine]
            failing = next((id for id in mine if store.fates[id] == FAILS), None)
            before = mine if failing is None else mine[: mine.index(failing)]
            expected = [id for id in before if store.fates[id] == GOOD]
            assert gone == (expected[: len(gone)] if stopped else expected)
        if not stopped:
            for number, (key, fate) in enumerate(dead_letters):
                if key is None:
                    assert (str(number) in store.published) == (fate == GOOD)

    run(body)


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from([b"a", b"b"])), max_size=300),
    st.integers(1, 120),
    st.sampled_from(["", "x", "y"]),
    st.sampled_from([None, b"a"]),
    st.integers(0, 300),
)
def test_pages_give_each_matching_record_once_and_in_order(
    dead_letters: list[tuple[str, bytes]], limit: int, kind: str, key: bytes | None, since: int
) -> None:
    async def body() -> None:
        store = Store()
        for number, (error_type, dead_letter_key) in enumerate(dead_letters):
            store.add(str(number), key=dead_letter_key, metadata={wire.PF_ERROR_TYPE: error_type})
        chosen = DeadLetterFilter(error_type=kind or None, key=key, since=float(since))
        expected = [
            str(number)
            for number, (error_type, dead_letter_key) in enumerate(dead_letters)
            if kind in ("", error_type) and key in (None, dead_letter_key) and number + 1 >= since
        ]
        all_of_them, after, seen = DeadLetters(store), "", list[str]()
        while page := await all_of_them.list(DEAD, limit=limit, after=after, filter=chosen):
            assert len(page) <= limit
            after = page[-1].position
            seen += [record.message.id for record in page]
        assert seen == expected
        assert store.largest_take <= 100, "memory is bounded"
        assert await all_of_them.purge(DEAD, filter=chosen) == len(expected)
        assert {*store.ids} == {str(number) for number in range(len(dead_letters))} - {*expected}

    run(body)


class Observer:
    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def counted(self, topic: str, count: int) -> None:
        self.seen.append(("counted", count))

    def replayed(self, topic: str, count: int, ids: Sequence[str], to: str) -> None:
        self.seen.append(("replayed", count, *ids, to))

    def purged(self, topic: str, count: int, ids: Sequence[str]) -> None:
        self.seen.append(("purged", count, *ids))


async def test_what_is_done_is_observed_also_when_some_are_left() -> None:
    store, observer = Store(), Observer()
    dead_letters = DeadLetters(store, topics=(DEAD,), observer=observer)
    for id in "abcde":
        store.add(id)
    store.fates["b"] = REFUSED
    assert await dead_letters.count(DEAD) == 5
    with pytest.raises(
        ReplayError, match=r"2 replayed, 1 left: b: it is too large \[PF\d+\] \[PF603\]$"
    ):
        await dead_letters.replay(DEAD, ["a", "b", "c"])
    assert await dead_letters.purge(DEAD, ["d"]) == 1
    assert await dead_letters.purge(DEAD) == 2
    assert observer.seen == [
        *(("counted", 5), ("replayed", 2, "a", "c", ""), ("purged", 1, "d"), ("purged", 2)),
    ]
    assert dead_letters.topics == (DEAD,)
    for use in (
        dead_letters.count("orders"),
        dead_letters.list("orders"),
        dead_letters.show("orders", "a"),
        dead_letters.replay("orders"),
        dead_letters.purge("orders"),
    ):
        with pytest.raises(DeadLetterNotFoundError, match="no handler"):
            await use


@pytest.mark.parametrize("known", [False, True])
async def test_an_operator_may_name_another_topic(known: bool) -> None:
    store, observer = Store(), Observer()
    if known:
        store.sources.add([SubscriptionSettings(
            name="orders/billing", topic="orders", group="billing", dead_letter_topics=(DEAD,),
        )])  # fmt: skip
    for id in "ab":
        store.add(id)
    dead_letters = DeadLetters(store, observer=observer)
    assert await dead_letters.replay(DEAD, ["a"], to="repaired") == 1
    assert await dead_letters.replay(DEAD, ["b"], to_origin=True) == 1
    assert store.published == ["a", "b"]
    assert observer.seen == [
        *(("replayed", 1, "a", "repaired"), ("replayed", 1, "b", "the original topic")),
    ]


async def test_an_unknown_id_changes_nothing() -> None:
    store = Store()
    store.add("a")
    dead_letters = DeadLetters(store)
    for use in (dead_letters.replay(DEAD, ["a", "z"]), dead_letters.purge(DEAD, ["a", "z"])):
        with pytest.raises(DeadLetterNotFoundError, match="no dead letter z in"):
            await use
    assert (store.ids, store.published) == (["a"], [])
    with pytest.raises(DeadLetterNotFoundError, match=r"and 15 more in"):
        await dead_letters.purge(DEAD, [str(number) for number in range(25)])


async def test_the_oldest_of_an_id_is_shown_and_all_of_it_are_replayed() -> None:
    store = Store()
    for id in ("a", "b", "a"):
        store.add(id)
    assert (await DeadLetters(store).show(DEAD, "a")).position == "1"
    assert await DeadLetters(store).replay(DEAD, ["a"]) == 2
    assert store.ids == ["b"]


async def test_what_is_replayed_and_cannot_be_removed_is_reported() -> None:
    store = Store()
    for id in "abc":
        store.add(id, key=b"k")
    store.fates["b"] = NOT_REMOVED
    with pytest.raises(ReplayError, match="1 replayed, 2 left") as caught:
        await DeadLetters(store).replay(DEAD)
    assert str(caught.value.left["b"]) == "the connection was lost [PF301]"
    assert "an earlier dead letter of its key" in str(caught.value.left["c"])
    assert store.published == ["a", "b"]


async def test_a_key_that_failed_waits_in_later_portions() -> None:
    store = Store()
    for number in range(250):
        store.add(str(number), key=b"%d" % (number % 2))
    store.fates["0"] = FAILS
    with pytest.raises(ReplayError, match=r"125 replayed, 125 left.*and 120 more") as caught:
        await DeadLetters(store).replay(DEAD)
    assert caught.value.left.keys() == {str(number) for number in range(0, 250, 2)}


async def test_a_replay_stops_when_nothing_goes_any_more() -> None:
    store = Store()
    for number in range(1000):
        store.add(str(number))
        store.fates[str(number)] = FAILS if number >= 50 else GOOD
    with pytest.raises(ReplayError, match="stopped, for the broker is full") as caught:
        await DeadLetters(store).replay(DEAD)
    assert caught.value.replayed == 50
    assert 100 <= caught.value.left_count <= 200, "the rest was not tried"
    assert len(store.records) == 950


async def test_a_lost_connection_is_the_error_unless_something_was_replayed() -> None:
    store = Store()
    for number in range(150):
        store.add(str(number))
    store.reads = 0
    with pytest.raises(TransportError, match="connection was lost"):
        await DeadLetters(store).replay(DEAD)
    store.reads = 1
    with pytest.raises(ReplayError, match=r"100 replayed, 0 left: the replay stopped") as caught:
        await DeadLetters(store).replay(DEAD)
    assert isinstance(caught.value.__cause__, TransportError)
    assert len(store.records) == 50


async def test_only_so_many_are_kept_in_the_error() -> None:
    store = Store()
    for number in range(1200):
        store.add(str(number))
        store.fates[str(number)] = UNREPLAYABLE
    with pytest.raises(ReplayError, match="0 replayed, 1200 left") as caught:
        await DeadLetters(store).replay(DEAD)
    assert len(caught.value.left) == 1000
    assert len(str(caught.value)) < 1000


def test_known_sources_decide_whose_dead_letters_are_replayed() -> None:
    store = Store()
    settings = SubscriptionSettings(
        name="orders/billing", topic="orders", group="billing", dead_letter_topics=(DEAD,)
    )
    record = store.add("a", metadata={"keep": "1"})
    forged = store.add("b", metadata={wire.PF_GROUP: "mailing"})
    nameless = store.add("c", metadata={wire.PF_GROUP: ""})
    sources = store.sources
    message, group = sources.replayed(forged, to_origin=False)
    assert (message.topic, group) == ("orders", "mailing"), "nothing is known"
    assert sources.replayed(nameless, to_origin=True)[0].topic == "orders"
    with pytest.raises(NotReplayableError, match="names no original topic and group"):
        sources.replayed(nameless, to_origin=False)
    sources.add([settings])
    message, _ = sources.replayed(record, to_origin=False)
    assert message.metadata == {"keep": "1"}
    assert message.deduplication_id == f"a:billing:p1.{DEAD}"
    for to_origin in (False, True):
        with pytest.raises(NotReplayableError, match="are in another topic"):
            sources.replayed(forged, to_origin=to_origin)
    origin = ("orders", "billing")
    assert sources.replayed(forged, to_origin=False, origin=origin)[1] == "billing"
    assert sources.has_topic(DEAD, "orders")
    assert not sources.has_topic(DEAD, "payments")
    assert sources.has_topic("others", "payments")


@pytest.mark.parametrize("position", ["x", "-1", "1.5", "²", "1" * 21])
def test_a_position_is_a_number(position: str) -> None:
    assert number_of("") == 0
    assert number_of("17") == 17
    with pytest.raises(ValueError, match="position"):
        number_of(position)


@pytest.mark.parametrize(
    ("topic", "group", "to_origin", "valid"),
    [
        ("orders", "shop..billing", False, True),
        ("orders", "", True, True),
        ("orders", "", False, False),
        ("orders", "billing/retry", False, False),
        ("queue/orders", "billing", True, False),
    ],
)
def test_a_dead_letter_names_a_topic_and_a_group_that_can_exist(
    topic: str, group: str, to_origin: bool, valid: bool
) -> None:
    message = Message(id="1", topic=topic, payload=b"")
    if valid:
        check_names(message, group, to_origin=to_origin)
    else:
        with pytest.raises(NotReplayableError, match="which cannot exist"):
            check_names(message, group, to_origin=to_origin)
