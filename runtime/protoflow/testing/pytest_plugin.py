"""The pytest plugin: seeds of simulations, fixtures, and readable differences of messages.

pytest loads it wherever Protoflow is installed. It imports other modules only when a test needs
them. It creates no event loop, so it works with pytest-asyncio, with anyio or without both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from protoflow.errors import ConfigError
from protoflow.testing.seeds import DEFAULTS, parse_seed

if TYPE_CHECKING:
    from protoflow.context import Context

#: The number of seeds in one test if `protoflow_seeds` spreads them over several tests.
_PART = 250


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the command-line options."""
    group = parser.getgroup("protoflow", "simulations of Protoflow services")
    group.addoption(
        "--protoflow-seeds", type=int, default=None, metavar="N",
        help="run N seeds of each simulation (default: as the test sets, else 100)",
    )  # fmt: skip
    group.addoption(
        "--protoflow-seed", default=None, metavar="SEED",
        help="run this seed alone, as a failure prints it",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker, and reads the options."""
    config.addinivalue_line(
        "markers", "protoflow_seeds(count): how many seeds the simulations of a test run"
    )
    seed = config.getoption("--protoflow-seed")
    try:
        DEFAULTS.seed = None if seed is None else parse_seed(seed)
    except ConfigError as error:
        raise pytest.UsageError(f"--protoflow-seed: {error}") from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Splits a test that takes `protoflow_seeds` into parts, which pytest-xdist can distribute."""
    if "protoflow_seeds" not in metafunc.fixturenames:
        return
    if DEFAULTS.seed is not None:
        parts: list[Sequence[int | str]] = [[str(DEFAULTS.seed)]]
    else:
        marker = metafunc.definition.get_closest_marker("protoflow_seeds")
        count = _count(metafunc.config, marker)
        parts = [range(at, min(count, at + _PART)) for at in range(0, count, _PART)]
    names = [_name(part) for part in parts]
    metafunc.parametrize("protoflow_seeds", parts, ids=names)


def _name(part: Sequence[int | str]) -> str:
    return f"{part[0]}-{part[-1]}" if len(part) > 1 else "seed"


def _count(config: pytest.Config, marker: pytest.Mark | None) -> int:
    given: int | None = config.getoption("--protoflow-seeds")
    if given is not None:
        return given
    return int(marker.args[0]) if marker is not None and marker.args else 100


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Sets the seeds of simulations, and the name of the test."""
    DEFAULTS.seeds = _count(item.config, item.get_closest_marker("protoflow_seeds"))
    DEFAULTS.test = item.nodeid
    callspec = getattr(item, "callspec", None)
    if callspec is not None and (part := callspec.params.get("protoflow_seeds")) is not None:
        # The run that repeats a failure has one seed, so its name ends with `seed`.
        before, bracket, parameters = item.nodeid.rpartition("[")
        DEFAULTS.test = before + bracket + parameters.replace(_name(part), "seed")


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Resets the seeds and the name of the test."""
    DEFAULTS.test = ""


@pytest.fixture
def simulate() -> Callable[..., Any]:
    """Returns `protoflow.testing.simulate`."""
    from protoflow.testing.simulation import simulate

    return simulate


@pytest.fixture
def run_service() -> Callable[..., Any]:
    """Returns `protoflow.testing.run`: `async with run_service(Handler()) as service`."""
    from protoflow.testing.service import run

    return run


@pytest.fixture
def handler_context() -> Callable[..., Context]:
    """Returns `protoflow.testing.context`; it makes contexts for handlers that tests call."""
    from protoflow.testing.handler_context import context

    return context


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Shows how protobuf messages, or lists of them, differ."""
    from google.protobuf.message import Message

    def messages(value: object) -> list[Message] | None:
        if isinstance(value, Message):
            return [value]
        if isinstance(value, list) and value and all(isinstance(each, Message) for each in value):
            return value
        return None

    found, expected = messages(left), messages(right)
    if op != "==" or found is None or expected is None:
        return None
    from protoflow.testing.assertions import message_diff

    return ["protobuf messages differ", *message_diff(found, expected).splitlines()]
