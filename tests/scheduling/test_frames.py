"""Messages whose type the registry does not name wait together."""

from __future__ import annotations

import asyncio
from typing import Any

from protoflow.codecs.framing import Frame
from protoflow.config.settings import Config
from protoflow.errors import SchemaRegistryError
from protoflow.message import Delivery
from protoflow.outcomes import Postpone
from protoflow.scheduling.frames import Frames
from protoflow.scheduling.router import Router
from protoflow.schema_registry.registry import SchemaRegistry

from tests.scheduling.fakes import message_of, route_of, spec_of

LONGEST = 15.0


class DownRegistry(SchemaRegistry):
    """A registry that cannot be reached until it is up."""

    def __init__(self) -> None:
        options = {"url": "http://nowhere", "longest_wait": LONGEST}
        config = Config(transport="memory://", environ={}, schema_registry=options)
        super().__init__(config, lambda: 0.5)
        self.up = False

    async def learn(self, frame: Frame) -> str:
        if not self.up:
            raise SchemaRegistryError("no answer", temporary=True)
        return "a.B"


async def asked(frames: Frames, number: int) -> Postpone:
    delivery = Delivery(message=message_of(str(number), payload=bytes(Frame(number, (0,))) + b"x"))
    context: Any = None
    outcome = await frames.pending.run(delivery, context)
    assert isinstance(outcome, Postpone)
    return outcome


async def test_messages_that_fail_together_are_one_failure() -> None:
    registry = DownRegistry()
    route = route_of(spec_of())
    problems: list[str | None] = []
    frames = Frames(
        registry, Router({"": route}, [route], {}), lambda _name, text: problems.append(text),
        lambda: 0.5,
    )  # fmt: skip
    waits = [
        outcome.delay for outcome in await asyncio.gather(*(asked(frames, n) for n in range(50)))
    ]
    assert max(waits) < 1, "the first wait, however many messages wait"
    assert all("no answer" in str(problem) for problem in problems)
    registry.up = True
    assert (await asked(frames, 1)).delay == 0
    assert problems[-1] is None
