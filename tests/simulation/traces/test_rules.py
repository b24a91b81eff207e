"""What each broker may do, and what none may, as short traces."""

from __future__ import annotations

import pytest
from protoflow.testing.broker_traces import Event, check, rules

LEASE = 30.0
#: A line is `<second> <member> <kind> <detail>`; deliveries are numbered by their members.
PUBLISHED = "0 - publish\n0 - published stored\n"
SETTLED_BY_A = PUBLISHED + "1 A deliver\n2 A settle ACK\n2 A settled DONE\n"
TAKEN_AWAY = (
    PUBLISHED + "1 A deliver\n{taken} B deliver\n{taken} A settle ACK\n{taken} A settled {result}\n"
)


def events(script: str) -> list[Event]:
    found = [
        Event(time=0.0, member="A", kind="join", topic="t", group="t/g", detail=f"NONE {LEASE}")
    ]
    deliveries, calls = {"A": 0, "B": 0}, 0
    for line in script.splitlines():
        time, member, kind, *detail = line.split()
        if kind == "deliver":
            deliveries[member] += 1
        calls += kind == "publish"
        outside = kind in ("publish", "published", "crash", "fault")
        found.append(
            Event(
                time=float(time),
                member="" if member == "-" else member,
                kind=kind,
                topic="t",
                group="" if outside else "t/g",
                message="" if kind in ("crash", "fault") else "m",
                call=calls,
                delivery=deliveries.get(member, 0),
                shard="0",
                place="" if outside else "5",
                detail=" ".join(detail),
            )
        )
    return found


def agrees(transport: str, script: str) -> bool:
    return not check(events(script), transport).found


@pytest.mark.parametrize("transport", ["sqlite", "jetstream", "rabbitmq", "kafka"])
def test_what_was_given_back_comes_again(transport: str) -> None:
    again = "1 A deliver\n2 A settle RELEASE\n2 A settled DONE\n3 B deliver\n"
    assert agrees(transport, PUBLISHED + again + "4 B settle ACK\n4 B settled DONE")


@pytest.mark.parametrize("transport", ["sqlite", "jetstream", "rabbitmq", "kafka"])
def test_what_a_killed_process_held_comes_again(transport: str) -> None:
    killed = "1 A deliver\n2 A crash\n40 B deliver\n41 B settle ACK\n41 B settled DONE"
    assert agrees(transport, PUBLISHED + killed)


@pytest.mark.parametrize(
    ("transport", "agreed"),
    [("sqlite", False), ("jetstream", False), ("rabbitmq", True), ("kafka", True)],
)
def test_where_settlements_are_not_confirmed_they_are_forgotten_with_the_process(
    transport: str, agreed: bool
) -> None:
    again = "3 A crash\n4 B deliver\n5 B settle ACK\n5 B settled DONE"
    assert agrees(transport, SETTLED_BY_A + again) is agreed


@pytest.mark.parametrize("transport", ["sqlite", "jetstream", "rabbitmq", "kafka"])
def test_nothing_comes_again_without_a_reason(transport: str) -> None:
    assert not agrees(transport, SETTLED_BY_A + "4 B deliver\n5 B settle ACK\n5 B settled DONE")


@pytest.mark.parametrize("transport", ["sqlite", "jetstream"])
def test_a_lease_is_taken_away_when_it_is_over_and_is_fenced(transport: str) -> None:
    end = "60 B settle ACK\n60 B settled DONE"
    assert agrees(transport, TAKEN_AWAY.format(taken=50, result="LOST") + end)
    assert not agrees(transport, TAKEN_AWAY.format(taken=50, result="DONE") + end)
    assert not agrees(transport, TAKEN_AWAY.format(taken=5, result="LOST") + end)


@pytest.mark.parametrize("transport", ["rabbitmq", "kafka"])
def test_what_was_taken_away_is_settled_by_who_did_not_notice_only(transport: str) -> None:
    end = "60 B settle ACK\n60 B settled DONE"
    fault = PUBLISHED + "1 A deliver\n2 - fault\n"
    rest = "5 B deliver\n5 A settle ACK\n5 A settled DONE\n"
    assert agrees(transport, fault + rest + end)
    assert not agrees(transport, PUBLISHED + "1 A deliver\n" + rest + end)


def test_a_settlement_whose_answer_was_lost_is_answered_as_before() -> None:
    unknown = "1 A deliver\n2 A settle ACK\n3 A settled UNKNOWN\n4 A settle ACK\n4 A settled DONE"
    assert agrees("sqlite", PUBLISHED + unknown)
    assert agrees("jetstream", PUBLISHED + unknown)


def test_a_publish_whose_answer_was_lost_may_be_there_twice() -> None:
    twice = "0 - publish\n0 - published unknown\n" + PUBLISHED
    both = "2 A deliver\n3 A settle ACK\n3 A settled DONE\n"
    assert agrees("sqlite", twice + both + both)
    assert not agrees("sqlite", PUBLISHED + both + both)


def test_a_repeated_publish_is_taken_once_where_the_broker_deduplicates() -> None:
    again = "1 A deliver\n2 A settle ACK\n2 A settled DONE\n"
    assert agrees("jetstream", PUBLISHED + PUBLISHED + again)
    assert not agrees("jetstream", PUBLISHED + PUBLISHED + again + again)
    assert agrees("sqlite", PUBLISHED + PUBLISHED + again + again)


BY_A = PUBLISHED + "1 A deliver\n"
BY_B = "60 B deliver\n61 B settle ACK\n61 B settled DONE\n"
#: For each row of the table a trace that another verdict would meet without it.
NEEDS = {
    ("coming", "stored"): ("sqlite", SETTLED_BY_A),
    ("coming", "taken for a repetition"): ("jetstream", PUBLISHED + SETTLED_BY_A + BY_B),
    ("coming", "refused"): ("sqlite", "0 - publish\n0 - published refused\n" + SETTLED_BY_A),
    ("free", "delivered"): ("sqlite", SETTLED_BY_A),
    ("held", "settle called"): ("sqlite", SETTLED_BY_A),
    ("held", "given up by its holder"): ("sqlite", BY_A + "2 A crash\n" + BY_B),
    ("held", "taken away"): ("sqlite", BY_A + BY_B),
    ("acting", "acknowledged"): ("sqlite", SETTLED_BY_A),
    ("acting", "given back"): ("kafka", BY_A + "2 A settle NACK\n2 A settled DONE\n" + BY_B),
    ("acting", "settlement lost"): (
        "kafka",
        BY_A + "2 A settle ACK\n3 A settled UNKNOWN\n4 A settle NACK\n4 A settled DONE\n" + BY_B,
    ),
    ("acting", "taken away"): ("sqlite", BY_A + "2 A settle ACK\n" + BY_B + "62 A settled LOST\n"),
    ("soft", "forgotten"): ("kafka", SETTLED_BY_A + "3 A crash\n" + BY_B),
}


@pytest.mark.parametrize("row", NEEDS, ids=" ".join)
def test_every_row_of_the_table_is_needed(
    row: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {(before, what) for before, what, *_ in rules.TRANSITIONS} == NEEDS.keys()
    transport, script = NEEDS[row]
    with_it = agrees(transport, script)
    kept = tuple(each for each in rules.TRANSITIONS if each[:2] != row)
    monkeypatch.setattr(rules, "TRANSITIONS", kept)
    assert agrees(transport, script) is not with_it
