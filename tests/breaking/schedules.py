"""Schedules: careless rollouts, and those that the verdicts print."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from protoflow.breaking.verdict import Rollout
from protoflow.connection import Connection
from protoflow.contract.names import namespaced

from tests.breaking.world import World

Schedule = Callable[[World], Awaitable[None]]


async def consumers_first(world: World) -> None:
    """Consumers of both versions run together before a new producer does."""
    old, new = world.old, world.new
    await world.start(old)
    await world.publish(old)
    await world.age()
    await world.start_elsewhere()
    await world.start(new)
    await world.publish(old)
    await world.stop(old)
    await world.publish(old)
    await world.publish(new, final=True)
    await finish(world)


async def careless(world: World) -> None:
    """Old and new producers and consumers run together in every combination."""
    old, new = world.old, world.new
    await world.start(old)
    await world.publish(old)
    await world.age()
    await world.publish(new)
    await world.start(new)
    await world.publish(old)
    await world.publish(new)
    await world.stop(old)
    await world.publish(old)
    await world.publish(new, final=True)
    if world.elsewhere:
        world.release()
        await world.settled()
        await world.age()
        await world.start_elsewhere()
    await finish(world)


async def drained(world: World) -> None:
    """The old version handles all before the new one starts."""
    old, new = world.old, world.new
    await world.start(old)
    await world.publish(old)
    await world.age()
    await world.publish(old)
    world.release()
    await world.settled()
    await world.replay(old)
    await world.stop(old)
    await world.start(new)
    await world.publish(new, final=True)
    await finish(world)


async def producers_then_drained(world: World) -> None:
    """New producers, then nothing is left for the old consumers."""
    old, new = world.old, world.new
    await world.start(old)
    await world.publish(old)
    await world.age()
    await world.publish(new)
    world.release()
    await world.settled()
    await world.replay(old)
    await world.start(new)
    await world.publish(new)
    await world.stop(old)
    await world.publish(new, final=True)
    await finish(world)


async def replayed(world: World) -> None:
    """Any order, and then the old dead letters."""
    await consumers_first(world)
    async with Connection(world.old.config) as connection:
        for handler in world.old.contract.handlers.values():
            topic = namespaced(world.old.config.namespace, handler.dead_letter_topic)
            await world.replay_topic(connection.dead_letters, topic)
    await world.settled()


async def finish(world: World) -> None:
    """Nothing fails any more, and the new version replays what it finds."""
    world.release()
    await world.settled()
    await world.replay(world.new)


async def recover(world: World) -> None:
    """Runs the old version once more."""
    await world.stop(world.new)
    await world.start(world.old)
    await world.settled()
    await world.replay(world.old)


#: What each rollout does; KEEP rolls the old version over itself.
CAREFUL: dict[Rollout, Schedule] = {
    Rollout.CONSUMERS_FIRST: consumers_first,
    Rollout.PRODUCERS_FIRST: producers_then_drained,
    Rollout.DRAIN: drained,
    Rollout.REPLAY: replayed,
    Rollout.KEEP: consumers_first,
}
