from __future__ import annotations

import re

from google.protobuf.wrappers_pb2 import Int64Value
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse
from protoflow import Context
from protoflow.observability.prometheus import Exposition
from protoflow.testing import TestedService

from tests.middleware.harness import NAME, TO_DONE, put, running, worker

LABELS = {"topic": "work", "group": "workers", "handler": NAME}
PROCESS = {
    "messaging_system": "memory",
    "messaging_operation_name": "process",
    "messaging_destination_name": "work",
    "messaging_consumer_group_name": "workers",
    "protoflow_handler": NAME,
}


async def bill(message: object, context: Context) -> Int64Value | None:
    if str(message).find("bad") >= 0:
        raise ValueError("card 4111111111111111")
    return Int64Value(value=1)


async def samples(service: TestedService) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    reporter = service.service.reporter
    await reporter.refresh()
    text, content_type = Exposition(reporter).render()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text.decode())
        for sample in family.samples
    }


async def test_every_count_is_there() -> None:
    async with running(worker(bill, publication=TO_DONE)) as service:
        await put(service, "good", "good", "bad")
        found = await samples(service)

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert value("protoflow_messages_total", **LABELS, outcome="handled") == 2
    assert value("protoflow_messages_total", **LABELS, outcome="dead_lettered") == 1
    assert value("protoflow_errors_total", **LABELS, category="other") == 3
    assert value("protoflow_retries_total", **LABELS) == 2
    assert value("protoflow_failed_runs_total", **LABELS) == 3
    assert value("protoflow_outputs_total", **LABELS) == 2
    assert value("protoflow_settle_failures_total", **LABELS, result="lost") == 0
    assert value("protoflow_in_flight", topic="work", group="workers") == 0
    assert value("protoflow_subscription_healthy", topic="work", group="workers") == 1
    assert value("protoflow_lag_messages", topic="work", group="workers") == 0
    assert value("messaging_process_duration_seconds_count", **PROCESS) == 5
    assert value("messaging_process_duration_seconds_bucket", **PROCESS, le="0.005") == 5
    received = {key: PROCESS[key] for key in list(PROCESS)[2:4]}
    assert (
        value(
            "messaging_client_consumed_messages_total",
            messaging_system="memory",
            messaging_operation_name="receive",
            **received,
        )
        == 3
    )
    assert (
        value(
            "messaging_client_sent_messages_total",
            messaging_system="memory",
            messaging_operation_name="send",
            messaging_destination_name="done",
        )
        == 2
    )
    dead_letters = {"dead_letter_topic": "work..workers..dead"}
    assert value("protoflow_dead_letters_total", **dead_letters) == 1
    assert value("protoflow_dead_letter_attempts_total", **dead_letters) == 3
    assert value("protoflow_dead_letters_waiting", **dead_letters) == 1
    assert value("protoflow_dead_letters_oldest_timestamp_seconds", **dead_letters) > 1.7e9


async def test_a_scrape_is_what_the_counters_say_once_and_only_once() -> None:
    """Trap B18: handler executions observed twice, in a registry that everybody shares."""
    before = {metric.name for metric in REGISTRY.collect()}
    async with running(worker(bill, publication=TO_DONE)) as service:
        await put(service, "good")
        first, second = await samples(service), await samples(service)
        stats = service.service.stats()[NAME]
    assert first == second
    key = ("protoflow_messages_total", frozenset({**LABELS, "outcome": "handled"}.items()))
    assert first[key] == stats.handled == 1
    assert {metric.name for metric in REGISTRY.collect()} == before


async def test_openmetrics_is_given_to_those_who_accept_it() -> None:
    async with running(worker(bill, publication=TO_DONE)) as service:
        await put(service, "good", "bad")
        exposition = Exposition(service.service.reporter)
        text, content_type = exposition.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = list(parse_openmetrics(text.decode()))  # type: ignore[no-untyped-call]  # theirs
    assert {family.name for family in families} >= {
        "protoflow_messages",
        "messaging_process_duration_seconds",
    }


async def test_names_follow_the_conventions() -> None:
    """What `promtool check metrics` asks for."""
    async with running(worker(bill, publication=TO_DONE)) as service:
        await put(service, "good", "bad")
        families = list(Exposition(service.service.reporter).registry.collect())
    for family in families:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_count", "_sum", "_bucket", "_info", "_total"))
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        for sample in family.samples:
            for label in sample.labels:
                assert re.fullmatch(r"[a-z][a-z0-9_]*", label)
                assert label not in ("le", "quantile") or family.type == "histogram"


async def test_labels_come_from_the_contract_alone() -> None:
    async with running(worker(bill, publication=TO_DONE)) as service:
        await put(service, "good", "bad", *(f"value {index}" for index in range(50)))
        found = await samples(service)
    text = repr(found)
    assert "value 1" not in text
    assert "4111" not in text
    assert len(found) < 80


async def test_a_service_that_did_not_start_has_no_series() -> None:
    async with running(worker(bill, publication=TO_DONE)) as service:
        reporter = service.service.reporter
    assert b"protoflow_messages_total{" not in Exposition(reporter).render()[0]
