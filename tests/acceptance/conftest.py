"""One suite for every transport.

    pytest tests/acceptance                         every transport that can be had
    pytest tests/acceptance --transport sqlite      this one only; repeatable

A case says by `@needs("atomic")` which capabilities it is about; where the transport does
not claim them it is skipped, and the reason is `capability: atomic` and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.acceptance.harness import Harness
from tests.acceptance.targets import QUICK, TARGETS, Target
from tests.waiting import virtual


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--transport",
        action="append",
        choices=sorted(TARGETS),
        help="run the acceptance suite for this transport only; repeatable",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*capabilities): what the transport must claim")
    config.addinivalue_line("markers", "real_time: a thread works for longer than a timer waits")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--transport", default=None)
    targets = [each for each in TARGETS.values() if each.name in (chosen or QUICK)]
    names = [target.name for target in targets]
    metafunc.parametrize("target", targets, ids=names, indirect=True)


@pytest.fixture
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    """A transport under test, at a URL of its own; where nothing but this process takes part, in
    virtual time."""
    target: Target = request.param
    url = target.fresh_url(tmp_path)
    if url is None:
        pytest.skip(f"broker: {target.broker}")
    waits = target.name != "memory" or request.node.get_closest_marker("real_time")
    with nullcontext() if waits else virtual():
        yield target.at(url)


@pytest.fixture
async def harness(
    request: pytest.FixtureRequest, target: Target, tmp_path: Path
) -> AsyncIterator[Harness]:
    """What service-level cases work with, on a namespace of its own."""
    harness = Harness(target, target.url, tmp_path)
    await harness.open()
    try:
        for marker in request.node.iter_markers("needs"):
            harness.require(*marker.args)
        yield harness
    finally:
        await harness.close()
