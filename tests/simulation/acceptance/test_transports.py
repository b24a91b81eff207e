"""The shipped suite, run against the model of each transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from protoflow.testing.simulation.determinism import determined
from protoflow.testing.simulation.profiles import PROFILES
from protoflow.testing.transports import TransportTarget
from protoflow.testing.transports.cases import *  # noqa: F403

from tests.acceptance.targets import HOW
from tests.simulation.acceptance.model import crash, end_session, installed


@pytest.fixture(params=PROFILES)
async def target(request: pytest.FixtureRequest) -> AsyncIterator[TransportTarget]:
    """The model of a transport, in virtual time."""
    how = {name: HOW[request.param].get(name) for name in ("patience", "restarts", "commits_later")}
    loop = asyncio.get_running_loop()
    with installed(request.param) as scheme, determined(1, loop.time):
        yield TransportTarget(
            url=f"{scheme}://model",
            crash=crash,
            end_session=end_session,
            **{name: value for name, value in how.items() if value is not None},
        )
