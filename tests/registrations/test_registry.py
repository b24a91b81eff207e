"""A handler that cannot work is refused when it is registered, with the fix."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial, wraps
from typing import Any
from unittest.mock import AsyncMock

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from protoflow import Service
from protoflow.contract.spec import MethodSpec, ServiceSpec
from protoflow.errors import RegistrationError
from protoflow.handler import Handler, HandlerSync
from protoflow.registrations.shapes import shape_problem

from tests.middleware.harness import WORK, config, nothing, worker


async def coroutine(_message: Any, _context: Any) -> None: ...


def plain(_message: Any, _context: Any) -> None: ...


async def stream(_message: Any, _context: Any) -> AsyncIterator[Any]:
    yield 1


def generator(_message: Any, _context: Any) -> Iterator[Any]:
    yield 1


async def one(_message: Any) -> None: ...


def returns_awaitable(message: Any, context: Any) -> Awaitable[None]:
    return coroutine(message, context)


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class Called:
    async def __call__(self, message: Any, context: Any) -> None: ...

    async def method(self, message: Any, context: Any, /, more: int = 1) -> None: ...

    def plain(self, message: Any, context: Any) -> None: ...


ASYNC: dict[str, tuple[Any, str | None]] = {
    "coroutine": (coroutine, None),
    "method": (Called().method, None),
    "object": (Called(), None),
    "partial": (partial(Called().method, more=2), None),
    "decorated": (decorated(coroutine), None),
    "awaitable": (returns_awaitable, None),
    "lambda": (lambda message, context: coroutine(message, context), None),
    "mock": (AsyncMock(), None),
    "plain": (plain, "write `async def` for `def`"),
    "decorated plain": (decorated(plain), "write `async def` for `def`"),
    "plain method": (Called().plain, "write `async def` for `def`"),
    "stream": (stream, "it yields, but one result is expected"),
    "generator": (generator, "in an `async def`"),
    "one argument": (one, "write (message, context)"),
    "no function": ("orders", "which cannot be called"),
}
STREAMS: dict[str, tuple[Any, str | None]] = {
    "stream": (stream, None),
    "iterator": (plain, None),
    "coroutine": (coroutine, "`async def` with `yield`"),
    "generator": (generator, "write `async def` for `def`"),
}
SYNC: dict[str, tuple[Any, str | None]] = {
    "plain": (plain, None),
    "coroutine": (coroutine, "write `def` for `async def`"),
    "stream": (stream, "write `def` for `async def`"),
    "generator": (generator, "it yields, but the rpc returns one message"),
    "one argument": (lambda _message: None, "write (message, context)"),
}
CASES = [
    *((name, *case, {}) for name, case in ASYNC.items()),
    *((name, *case, {"streams": True}) for name, case in STREAMS.items()),
    *((name, *case, {"sync": True}) for name, case in SYNC.items()),
    ("generator", generator, None, {"sync": True, "streams": True}),
]


@pytest.mark.parametrize(
    ("name", "call", "text", "shape"), CASES, ids=[f"{case[0]}-{case[3]}" for case in CASES]
)
def test_the_shape_of_a_handler(
    name: str, call: Any, text: str | None, shape: dict[str, bool]
) -> None:
    problem = shape_problem("shop.v1.Orders.Bill", call, **shape)
    if text is None:
        assert problem is None, name
    else:
        assert problem is not None, name
        assert problem.startswith("shop.v1.Orders.Bill: ")
        assert text in problem


def spec_of(*names: str) -> ServiceSpec:
    methods = tuple(
        MethodSpec(name=f"a.B.{name}", handler=name, input=WORK, topic="t", group="g")
        for name in names
    )
    return ServiceSpec(name="a.B", methods=methods)


class Wrong(Handler):
    __protoflow_spec__ = spec_of("first", "second", "third")

    def first(self, message: Any, context: Any, /) -> None: ...

    async def second(self, message: Any, /) -> None: ...

    async def third(self, message: Any, context: Any, /) -> None: ...


class WrongSync(HandlerSync):
    __protoflow_spec__ = spec_of("work")

    async def work(self, message: Any, context: Any, /) -> None: ...


def test_register_reports_all_mistakes_at_once_and_registers_nothing() -> None:
    service = Service(config())
    good = worker(nothing)
    with pytest.raises(RegistrationError) as caught:
        service.register(good, Wrong(), WrongSync(), Wrong)  # type: ignore[arg-type]  # a class
    assert [text.split(":")[0] for text in caught.value.problems] == [
        "a.B.first", "a.B.second", "a.B.work", "Wrong is a class; register an instance",
    ]  # fmt: skip
    assert "Wrong.first" in caught.value.problems[0]
    service.register(good)
    with pytest.raises(RegistrationError, match="already registered"):
        service.register(good)


def test_plain_handlers_are_checked_too() -> None:
    service = Service(config())
    wrong: Any = plain
    with pytest.raises(RegistrationError, match="async def"):
        service.register_message_handler("a", "t", wrong)
    with pytest.raises(RegistrationError, match="async def"):
        service.register_json_handler("a", "t", wrong)
    with pytest.raises(RegistrationError, match="async def"):
        service.register_proto_handler("a", "t", StringValue, wrong)
    with pytest.raises(RegistrationError, match="output_class"):
        service.register_proto_handler("a", "t", StringValue, coroutine, publish_topic="x")
    two: Any = coroutine
    with pytest.raises(RegistrationError, match=r"\(event\)"):
        service.consume_events("a.b", two)
