"""`protoflow schemas` and `protoflow tail` with a real registry, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from protoflow import Message
from protoflow.connection import Connection

from tests.cli import schemas
from tests.outside import outside
from tests.schema_registry.conftest import Place

SETTINGS = """\
transport = "{url}"
namespace = "{namespace}"

[schema_registry]
url = "{registry}"
"""


@pytest.fixture
def run(place: Place, generated: Path, tmp_path: Path) -> Any:
    """Runs a command; returns exit code, stdout and stderr."""
    (tmp_path / "protoflow.toml").write_text(
        SETTINGS.format(url=place.url, namespace=place.namespace, registry=place.registry_url)
    )

    def command(*arguments: str, **environ: str) -> tuple[int, str, str]:
        options = ["--config", "protoflow.toml", "--contract", "registry.v1.orders_protoflow"]
        done = subprocess.run(
            [sys.executable, "-m", "protoflow.cli", *arguments, *options],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100,
            env={**outside(), "PYTHONPATH": f"{generated}{os.pathsep}runtime", **environ},
        )  # fmt: skip
        if "--json" in arguments and done.returncode < 2:
            schemas.validate(arguments, done.stdout)
        return done.returncode, done.stdout, done.stderr

    return command


def test_schemas_are_checked_and_registered(run: Any, place: Place) -> None:
    placed = f"{place.topic('orders.placed')}-value"
    code, out, _err = run("schemas", "check", "--json")
    assert code == 0
    rows = {row["message"]: row for row in json.loads(out)}
    assert rows["registry.v1.OrderPlaced"]["state"] == "+"
    assert rows["registry.v1.OrderPlaced"]["subject"] == placed
    assert run("schemas", "check", "--registered")[0] == 1, "a deployment would have to register"
    code, out, _err = run("schemas", "register")
    assert code == 0
    assert "= registry/v1/common.proto: registry/v1/common.proto, version " in out
    line = f"= {placed}: registry/v1/orders.proto (registry.v1.OrderPlaced), version 1, id "
    assert line in out
    assert run("schemas", "check", "--registered")[:2] == (0, out)


def test_incompatible_schemas_are_a_finding(run: Any, place: Place) -> None:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

    subject = f"{place.topic('orders.billed')}-value"
    text = 'syntax = "proto3";\npackage registry.v1;\nmessage OrderBilled { int64 order_id = 1; }\n'
    with SchemaRegistryClient({"url": place.registry_url}) as client:
        client.register_schema(subject, Schema(text, "PROTOBUF"))
        client.set_compatibility(subject, "BACKWARD")
    run("schemas", "register", PROTOFLOW_SCHEMA_REGISTRY__SUBJECT_STRATEGY="record")  # the import
    code, out, _err = run("schemas", "check")
    assert code == 1
    assert f"! {subject}: registry/v1/orders.proto (registry.v1.OrderBilled): " in out
    code, out, _err = run("schemas", "register")
    assert code == 4, "the other schemas are registered"
    assert "Incompatible artifact" in out


def test_a_registry_out_of_reach_is_named(run: Any) -> None:
    url = "http://127.0.0.1:1/apis"
    code, _out, err = run("schemas", "check", PROTOFLOW_SCHEMA_REGISTRY__URL=url)
    assert code == 3
    assert f"schema registry {url}: ClientConnectorError" in err
    code, _out, err = run("schemas", "check", PROTOFLOW_SCHEMA_REGISTRY__URL="kafka://x")
    assert code == 2
    assert "schema_registry.url: kafka://x is no address of a schema registry" in err


async def test_tail_shows_messages_in_frames(run: Any, place: Place, pb2: Any) -> None:
    async with Connection(place.config()) as connection:
        await connection.publish_proto("orders.placed", pb2.OrderShipped(order_id="7"))
        framed = connection.message_publisher.framed
        assert framed is not None
        framing = framed.registry.framing(place.topic("orders.placed"), pb2.OrderShipped)
        assert framing is not None
        payload = framing.data + pb2.OrderShipped(order_id="8").SerializeToString()
        foreign = Message(id="8", topic=place.topic("orders.placed"), payload=payload)
        await connection.publish(foreign)
    code, out, err = run("tail", "orders.placed", "--from", "earliest", "--no-follow", "--json")
    assert code == 0, err
    records = [json.loads(line) for line in out.splitlines()]
    assert [one["payload"] for one in records] == [{"order_id": "7"}, {"order_id": "8"}]
    assert {one["type"] for one in records} == {"registry.v1.OrderShipped"}
