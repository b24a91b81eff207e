"""Cases run in virtual time: the loop, and `time`, are simulated."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.acceptance.model import CaseLoop


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], CaseLoop]]:
    return {"simulated": CaseLoop}
