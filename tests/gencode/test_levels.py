"""Modules that were generated for every past contract level run on a service of today.

`tests/gencode/level<N>` has a contract, and the modules that were generated from it when level N
was the newest. They are never generated again; `SHA256SUMS` holds them to that.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from protoflow import Config, Service, gencode, testing
from protoflow.errors import GencodeError

HERE = Path(__file__).parent
LEVELS = sorted(int(path.name.removeprefix("level")) for path in HERE.glob("level*"))


def test_every_level_has_its_modules() -> None:
    assert list(range(1, gencode.API + 1)) == LEVELS


@pytest.mark.parametrize("level", LEVELS)
def test_modules_of_a_level_stay_as_they_were(level: int) -> None:
    folder = HERE / f"level{level}"
    rows = [line.split() for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert len(rows) == 3
    for digest, name in rows:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The package of a level, importable as its modules expect."""
    monkeypatch.syspath_prepend(str(HERE))
    name = f"level{request.param}"
    yield name
    for module in [one for one in sys.modules if one.startswith(f"{name}.")]:
        if not module.endswith("_pb2"):
            del sys.modules[module]


class Seen:
    """What the handlers of a level do, the same in coroutines and in threads."""

    def __init__(self, out: Any) -> None:
        self.out = out
        self.counts = Counter[str]()
        self.failures = 0

    def one(self, message: Any) -> None:
        self.counts["one"] += 1
        if message.number < 0:
            raise ValueError("negative")

    def same(self, name: str, messages: list[Any]) -> list[Any]:
        self.counts[name] += len(messages)
        return [self.out(number=one.number) for one in messages]


def coroutines(base: Any, seen: Seen) -> Any:
    class Shapes(base):  # type: ignore[misc]  # known when it runs
        async def one(self, message: Any, context: Any, /) -> None:
            seen.one(message)

        async def one_to_one(self, message: Any, context: Any, /) -> Any:
            return seen.same("one_to_one", [message])[0]

        async def one_to_many(self, message: Any, context: Any, /) -> AsyncIterator[Any]:
            for out in seen.same("one_to_many", [message, message]):
                yield out

        async def many(self, messages: Any, context: Any, /) -> None:
            seen.same("many", messages)

        async def many_to_one(self, messages: Any, context: Any, /) -> Any:
            return seen.same("many_to_one", messages)[0]

        async def many_to_many(self, messages: Any, context: Any, /) -> AsyncIterator[Any]:
            for out in seen.same("many_to_many", messages):
                yield out

        async def everywhere(self, message: Any, context: Any, /) -> None:
            seen.same("everywhere", [message])

        async def hear(self, message: Any, context: Any, /) -> None:
            seen.same("hear", [])
            seen.counts["hear"] += 1

    return Shapes()


def threads(base: Any, seen: Seen) -> Any:
    class Shapes(base):  # type: ignore[misc]  # known when it runs
        def one(self, message: Any, context: Any, /) -> None:
            seen.one(message)

        def one_to_one(self, message: Any, context: Any, /) -> Any:
            return seen.same("one_to_one", [message])[0]

        def one_to_many(self, message: Any, context: Any, /) -> Iterator[Any]:
            yield from seen.same("one_to_many", [message, message])

        def many(self, messages: Any, context: Any, /) -> None:
            seen.same("many", messages)

        def many_to_one(self, messages: Any, context: Any, /) -> Any:
            return seen.same("many_to_one", messages)[0]

        def many_to_many(self, messages: Any, context: Any, /) -> Iterator[Any]:
            yield from seen.same("many_to_many", messages)

        def everywhere(self, message: Any, context: Any, /) -> None:
            seen.same("everywhere", [message])

        def hear(self, message: Any, context: Any, /) -> None:
            seen.counts["hear"] += 1

    return Shapes()


#: Messages for each method: two inputs, one of them negative, which `one` sees three times.
EXPECTED = {
    "one": 4,
    "one_to_one": 2,
    "one_to_many": 4,
    "many": 2,
    "many_to_one": 2,
    "many_to_many": 2,
    "everywhere": 2,
    "hear": 1,
}


@pytest.mark.parametrize("kind", ["coroutines", "threads"])
async def test_every_shape_of_handler_runs_on_a_real_service(level: str, kind: str) -> None:
    pb = importlib.import_module(f"{level}.contract_pb2")
    pf = importlib.import_module(f"{level}.contract_protoflow")
    seen = Seen(pb.Out)
    if kind == "threads":
        handler = threads(pf.ShapesHandlerSync, seen)
    else:
        handler = coroutines(pf.ShapesHandler, seen)
    service = Service(Config(transport="memory://", environ={}))
    service.register(handler)
    async with service:
        events = pf.ContractEventProducer(service)
        await events.publish_in(pb.In(key="a", about="x", secret="s", number=1))
        await events.publish_in_part(pb.In.Part(name="unheard"))
        (id,) = await pf.ShapesProducer(service).one_many([pb.In(key="b", number=-1)])
        await pf.ShapesProducer(service).hear(pb.Remark(text="hello"))
        assert len(id) == 26
        async with asyncio.timeout(30):
            while seen.counts != EXPECTED:
                await asyncio.sleep(0.01)
    assert seen.counts == EXPECTED


async def test_policies_keys_and_dead_letters_are_those_of_the_contract(level: str) -> None:
    pb = importlib.import_module(f"{level}.contract_pb2")
    pf = importlib.import_module(f"{level}.contract_protoflow")
    async with testing.run(coroutines(pf.ShapesHandler, Seen(pb.Out))) as service:
        await pf.ContractEventProducer(service).publish_in(pb.In(key="b", secret="s", number=-1))
        await service.settled()
        attempts = [run.attempt for run in service.runs if run.handler == f"{level}.Shapes.One"]
        assert attempts == [1, 2, 3]
        assert len(service.dead_letters) == 1
        published = {message.topic for message in service.messages}
        assert f"{level}.in.one.dead" in published
        assert published >= {f"{level}.in", f"{level}.out", f"{level}.elsewhere"}
        assert service.messages[0].key == b"b"
        assert b'"number"' in next(
            message.payload or b""
            for message in service.messages
            if message.topic == f"{level}.out"
        )


def test_a_module_of_a_later_level_is_refused_with_the_fix() -> None:
    with pytest.raises(GencodeError, match=r"pip install 'protoc-gen-protoflow>=9\.0\.0'"):
        gencode.require(api=gencode.API + 1, generator="9.0.0", source="shop/v1/orders.proto")
