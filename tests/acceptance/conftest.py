"""One suite for every transport.

    pytest tests/acceptance                         every transport that can be had
    pytest tests/acceptance --transport sqlite      this one only; repeatable

A case says by `@needs("atomic")` which capabilities it is about; where the transport does
not claim them it is skipped, and the reason is `capability: atomic` and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.bench import Bench
from tests.acceptance.lab import Lab
from tests.acceptance.targets import TARGETS, Target


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--transport",
        action="append",
        choices=sorted(TARGETS),
        help="run the acceptance suite for this transport only; repeatable",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*capabilities): what the transport must claim")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--transport", default=None)
    targets = [target for target in TARGETS.values() if not chosen or target.name in chosen]
    names = [target.name for target in targets]
    metafunc.parametrize("target", targets, ids=names, indirect=True)


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """A transport under test, at a URL of its own."""
    target: Target = request.param
    url = target.fresh_url(tmp_path)
    if url is None:
        pytest.skip(f"broker: {target.broker}")
    return target.at(url)


@pytest.fixture
async def bench(
    request: pytest.FixtureRequest, target: Target, tmp_path: Path
) -> AsyncIterator[Bench]:
    """An open transport with topics of its own."""
    bench = Bench(target, target.url, tmp_path)
    bench.transport = await bench.connect()
    try:
        for marker in request.node.iter_markers("needs"):
            for capability in marker.args:
                if not getattr(bench.capabilities, capability):
                    pytest.skip(f"capability: {capability}")
        yield bench
    finally:
        await bench.close()


@pytest.fixture
async def lab(request: pytest.FixtureRequest, target: Target, tmp_path: Path) -> AsyncIterator[Lab]:
    """What service-level cases work with, on a namespace of its own."""
    lab = Lab(target, target.url, tmp_path)
    await lab.open()
    try:
        for marker in request.node.iter_markers("needs"):
            lab.require(*marker.args)
        yield lab
    finally:
        await lab.close()
