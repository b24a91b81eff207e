"""Transports on a simulated broker that no fault disturbs, one broker for each URL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from protoflow import transports
from protoflow.message import Delivery, Message, Settlement
from protoflow.testing.simulation.choices import Choices
from protoflow.testing.simulation.faults import Faults
from protoflow.testing.simulation.holds import Holder
from protoflow.testing.simulation.log_subscription import LogSubscription
from protoflow.testing.simulation.loop import SimulatedLoop
from protoflow.testing.simulation.process import Process
from protoflow.testing.simulation.profiles import Lending, profile_of
from protoflow.testing.simulation.trace import Trace
from protoflow.testing.simulation.transport import SimulatedTransport, broker_of
from protoflow.transport import Transport, TransportSettings
from protoflow.transports.memory.group import Group


class CaseLoop(SimulatedLoop):
    """A loop in virtual time that pytest-asyncio can run."""

    def __init__(self) -> None:
        super().__init__(1, lambda: 0.02)

    def _run_once(self) -> None:
        self._turn()


class Unjudged:
    """Implements `holds.Witness`: the cases judge."""

    def stored(self, message: Message, sequence: int) -> None: ...
    def deferred(self, group: Group, message: Message) -> None: ...
    def handed_out(self, group: Group, message: Message, holder: Holder) -> None: ...
    def settled(self, group: Group, settlement: Settlement, message: Message) -> None: ...
    def committed(self, group: Group, message: Message) -> None: ...
    def disturbed(self, group: Group) -> None: ...
    def taken_away(self, group: Group, message: Message) -> None: ...


class ModelHost:
    """Implements `link.Host` for the transports of one case."""

    def __init__(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        self.loop = loop
        self.choices = Choices(1)
        self.faults = Faults([], None, loop.time)
        self.trace = Trace()
        self.broker = broker_of(profile_of(name))(loop, profile_of(name), Unjudged())
        self._processes = 0

    def connect(self, settings: TransportSettings) -> SimulatedTransport:
        """Returns the transport of a process of its own."""
        self._processes += 1
        process = Process(f"member-{self._processes}", 1)
        return SimulatedTransport(self, process, "case", settings.clock)

    def crash(self, process: Process) -> None:
        """The process is killed now."""
        process.alive = False

    def lost(self, process: Process, deliveries: Sequence[Delivery]) -> None:
        """The cases see that for themselves."""


class _EntryPoint:
    """What a third party's transport is found by."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hosts: dict[str, ModelHost] = {}

    def load(self) -> _EntryPoint:
        return self

    def __call__(self, settings: TransportSettings) -> Transport:
        url = str(settings.url)
        if url not in self._hosts:
            self._hosts[url] = ModelHost(self._name)
        return self._hosts[url].connect(settings)


@contextmanager
def installed(name: str) -> Iterator[str]:
    """Within it the URL scheme that is yielded names the model of a transport."""
    scheme, found = f"simulated-{name}", transports._installed
    point = _EntryPoint(name)
    transports._installed = lambda: {scheme: point}  # type: ignore[dict-item]
    try:
        yield scheme
    finally:
        transports._installed = found


async def end_session(subscription: Any) -> None:
    """The broker ends what a subscription receives through; others may take over."""
    if isinstance(subscription, LogSubscription):
        subscription._broker.leave(subscription._state, subscription)
        return
    broker, member = subscription._broker, subscription.member
    lending, members = broker.profile.lending, member.group.members
    if lending is not Lending.EACH:
        broker.give_back(lambda hold: hold.holder is member, killed=False)
    if lending is Lending.CONNECTION:
        subscription.lose()
    members.pop(member, None)  # behind the others
    members[member] = None
    member.group.wake()


def crash(transport: Transport) -> None:
    """Ends a transport as a killed process does."""
    assert isinstance(transport, SimulatedTransport)
    transport.host.crash(transport.process)
    if transport.host.broker.profile.lending is Lending.CONNECTION:
        for subscription in transport.subscriptions:
            transport.host.broker.leave(subscription.member, killed=True)
    transport.subscriptions.clear()
    transport.readers.clear()
