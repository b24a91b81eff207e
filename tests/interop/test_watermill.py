"""Watermill, the real one, both ways: a Go program publishes and consumes."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from protoflow import wire
from protoflow.transports.nats.names import tokens

from tests.acceptance.contract import pb, pf
from tests.interop.conftest import Party
from tests.interop.peers import PATIENCE

SOURCE = Path(__file__).parent / "watermill"
#: The first build fetches and compiles a hundred packages.
BUILD = 240.0
pytestmark = pytest.mark.timeout(BUILD + 120)
_BROKERS = {"rabbitmq": "amqp"}


@pytest.fixture(scope="session")
def watermill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built; skips where Go or its modules cannot be had."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("tool: go")
    program = tmp_path_factory.mktemp("watermill") / "watermill"
    try:
        done = subprocess.run(
            [go, "build", "-mod=readonly", "-o", program, "."],
            cwd=SOURCE, capture_output=True, text=True, timeout=BUILD, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip(f"tool: go: the modules were not there after {BUILD:.0f} s")
    missing = ("dial tcp", "no such host", "proxyconnect", "i/o timeout", "no required module")
    if done.returncode and any(word in done.stderr for word in missing):
        pytest.skip(f"tool: go: {done.stderr.strip().splitlines()[-1][:200]}")
    assert done.returncode == 0, done.stderr
    return program


def _arguments(party: Party, verb: str, topic: str) -> list[str]:
    peer = party.peer
    names = {"jetstream": f"protoflow.{tokens(topic)}", "nats": tokens(topic)}
    return [verb, _BROKERS.get(peer.name, peer.name), peer.address, names.get(peer.name, topic)]


async def publish(program: Path, party: Party, topic: str, *lines: dict[str, Any]) -> None:
    """Watermill publishes."""
    process = await asyncio.create_subprocess_exec(
        program, *_arguments(party, "publish", topic),
        stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    _, errors = await asyncio.wait_for(process.communicate(text.encode()), PATIENCE)
    assert process.returncode == 0, errors.decode()


@asynccontextmanager
async def consuming(program: Path, party: Party, topic: str, count: int) -> AsyncIterator[Any]:
    """Watermill consumes: a function that gives what it got."""
    process = await asyncio.create_subprocess_exec(
        program, *_arguments(party, "consume", topic), str(count),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    first = await asyncio.wait_for(process.stdout.readline(), PATIENCE)

    async def taken() -> list[dict[str, Any]]:
        output, errors = await asyncio.wait_for(process.communicate(), PATIENCE + 5)
        assert process.returncode == 0, errors.decode()
        return [json.loads(line) for line in output.splitlines()]

    try:
        if first != b"ready\n":
            await taken()
        yield taken
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def line(uuid: str, payload: bytes, **metadata: str) -> dict[str, Any]:
    return {"uuid": uuid, "payload": base64.b64encode(payload).decode(), "metadata": metadata}


async def test_watermill_publishes(watermill: Path, party: Party) -> None:
    protojson = json_format.MessageToJson(
        pb.Task(number=1), always_print_fields_with_no_presence=True, indent=None
    ).encode()
    attributes = {"specversion": "1.0", "id": "4", "type": "suite.v1.Task", "source": "/go"}
    event = json.dumps({**attributes, "data": {"number": 4}}).encode()
    async with party.running("Mixed"):
        await publish(
            watermill,
            party,
            party.topic("mixed"),
            line("1", protojson, event_message_schema="*suitev1.Task", correlation_id="c"),
            line("2", pb.Task(number=2).SerializeToString(), name="suitev1.Task"),
            line("3", pb.Remark(text="3").SerializeToString(), name="suite.v1.Remark"),
            line("4", event, **{f"ce_{name}": value for name, value in attributes.items()}),
        )
        got = {it.context.id: it for it in await party.received(4)}
    assert set(got) == {"1", "2", "3", "4"}
    assert [got[id].message.number for id in "124"] == [1, 2, 4]
    assert got["3"].message.text == "3"
    assert got["1"].context.correlation_id == "c"


async def test_watermill_consumes(watermill: Path, party: Party) -> None:
    settings: dict[str, Any] = {
        "profile": "watermill",
        "type_names": {"*suitev1.Task": "suite.v1.Task"},
    }
    async with (
        party.running("Work", **settings) as service,
        consuming(watermill, party, party.topic("tasks"), 2) as taken,
    ):
        producer = pf.SuiteEventProducer(service)
        ids = [
            await producer.publish_task(pb.Task(number=1, key="k"), metadata={"color": "red"}),
            await producer.publish_task(pb.Task(number=2), key=b"\xff\x00", id="2"),
        ]
        lines = await taken()
    assert [line["uuid"] for line in lines] == ids
    for number, found in enumerate(lines, 1):
        assert pb.Task.FromString(base64.b64decode(found["payload"])).number == number
        metadata = found["metadata"]
        assert metadata[wire.GO_SCHEMA] == "*suitev1.Task"
        assert metadata[wire.WATERMILL_NAME] == "suitev1.Task"
        assert metadata[f"{party.peer.prefix}type"] == "suite.v1.Task"
    assert lines[0]["metadata"]["color"] == "red"


async def test_watermill_consumes_without_a_profile(watermill: Path, party: Party) -> None:
    """It only has no UUID then; that all headers are text suffices."""
    async with (
        party.running("Work") as service,
        consuming(watermill, party, party.topic("tasks"), 1) as taken,
    ):
        await pf.SuiteEventProducer(service).publish_task(pb.Task(number=1), key=b"\xff")
        (found,) = await taken()
    assert found["uuid"] == ""
    assert found["metadata"][f"{party.peer.prefix}type"] == "suite.v1.Task"


async def test_watermill_consumes_dead_letters(watermill: Path, party: Party) -> None:
    if party.peer.name == "nats":
        pytest.skip("capability: dead_letters")
    async with party.running("Work") as service:
        dead_letters = next(iter(service.dead_letters.topics))
        async with consuming(watermill, party, dead_letters, 1) as taken:
            await publish(
                watermill,
                party,
                party.topic("tasks"),
                line("w-1", b"\xff", event_message_schema="*suitev1.Task"),
            )
            (found,) = await taken()
    assert found["uuid"] == "w-1"
    metadata = found["metadata"]
    assert metadata["pf_dead_letter"] == "true"
    assert metadata["pf_original_topic"] == party.topic("tasks")
    assert metadata["pf_error_class"] == "decode"
    assert base64.b64decode(found["payload"]) == b"\xff"
