"""Delayed publishing without a plugin, exact to a tenth of a second.

A delay is written in binary. For each bit there is a queue whose time to live is the value of that
bit. An exchange before it checks this bit of the routing key. A message passes the queues of its
set bits, from the highest down, and then reaches the groups of its topic. So there are few,
constant queues for all delays, and none has a head that blocks it. They are quorum queues that
dead-letter at least once, so they lose nothing.

Waits between retries are not kept here: see `retry_delays`.
"""

from __future__ import annotations

import math

from protoflow.errors import PublishError, TransportError
from protoflow.transport.interface import TopologyMode
from protoflow.transports.rabbitmq.channel import FAILURES
from protoflow.transports.rabbitmq.link import Link, describe
from protoflow.transports.rabbitmq.names import DELAY_BITS, Names
from protoflow.transports.rabbitmq.topology import (
    Binding,
    Exchange,
    Plan,
    Queue,
    TopologyManager,
    dead_lettering,
    due,
)

_UNIT = 0.1  # seconds
#: The longest delay; the time to live of the last queue needs nearly all of its 32 bits.
MAX_DELAY = (2**DELAY_BITS - 1) * _UNIT


def units(delay: float) -> int:
    """Returns a delay in tenths of a second, rounded up so that it is never early."""
    return math.ceil(delay / _UNIT - 1e-6)


class Delays:
    """Creates the queues of delayed publishing at its first use.

    Attributes:
        ready: whether they exist.
    """

    def __init__(self, link: Link, names: Names) -> None:
        self.ready = False
        self._link = link
        self._names = names

    async def prepare(self, mode: TopologyMode) -> PublishError | None:
        """Creates the queues or, if that is not allowed, checks that they exist."""
        verified = TopologyMode.CREATE if mode is TopologyMode.CREATE else TopologyMode.VERIFY
        try:
            await TopologyManager(self._link).ensure(plan(self._names), verified)
        except (TransportError, *FAILURES) as error:
            return PublishError(f"delayed publishing is not ready: {describe(error)}")
        self.ready = True
        return None


def plan(names: Names) -> Plan:
    """Returns the exchanges and queues of all bits."""
    found = Plan()
    found.add(due(names))
    for bit in range(DELAY_BITS):
        name, following = names.delay(bit), names.delay(bit - 1)
        before = "*." * (DELAY_BITS - 1 - bit)
        arguments = {
            "x-message-ttl": round(2**bit * _UNIT * 1000),
            **dead_lettering(following, None),
        }
        found.add(
            Exchange(name=name, kind="topic"),
            Queue(name=name, arguments=arguments),
            Binding(source=name, target=name, key=f"{before}1.#"),
            Binding(source=name, target=following, key=f"{before}0.#", to_exchange=True),
        )
    # A due message without a consumer must go somewhere, or it would block its queue.
    nobody = names.nobody
    found.add(
        Exchange(name=nobody, kind="fanout"),
        Queue(name=nobody, arguments={"x-message-ttl": 0}),
        Binding(source=nobody, target=nobody, key=""),
    )
    return found
