"""Joining: groups at once, the subscriptions of one group in turn, and nothing goes on after a
failure."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from protoflow.service.lifetime import join_groups


class Member:
    """A subscription that joins when the test lets it."""

    def __init__(self, group: str, joining: list[str], name: str) -> None:
        self.settings = SimpleNamespace(group=group)
        self.name = name
        self.may_join: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._joining = joining

    async def join(self) -> None:
        self._joining.append(self.name)
        try:
            await self.may_join
        finally:
            self._joining.remove(self.name)


async def test_groups_join_at_once_and_the_subscriptions_of_a_group_in_turn() -> None:
    joining: list[str] = []
    first, second = Member("a", joining, "a/1"), Member("a", joining, "a/2")
    members: list[Any] = [first, second, Member("b", joining, "b/1")]
    joined = asyncio.create_task(join_groups(members))
    await asyncio.sleep(0.01)
    assert joining == ["a/1", "b/1"]
    first.may_join.set_result(None)
    await asyncio.sleep(0.01)
    assert joining == ["b/1", "a/2"]
    for member in members[1:]:
        member.may_join.set_result(None)
    await joined


async def test_after_a_failure_nobody_goes_on_joining() -> None:
    joining: list[str] = []
    failing = Member("a", joining, "a/1")
    members: list[Any] = [failing, Member("b", joining, "b/1"), Member("b", joining, "b/2")]
    joined = asyncio.create_task(join_groups(members))
    await asyncio.sleep(0.01)
    failing.may_join.set_exception(OSError("the broker is gone"))
    with pytest.raises(OSError, match="the broker is gone"):
        await joined
    assert joining == []
    assert not members[2].may_join.done(), "it was never asked"
