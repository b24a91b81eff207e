"""Tests of handlers: a real service on the memory transport, in virtual time.

    async def test_a_failed_bill_is_tried_again():
        async with testing.run(Billing(FlakyDatabase())) as service:
            await OrdersEventProducer(service).publish_order_placed(OrderPlaced(order_id="7"))
            await service.settled()
            assert [run.attempt for run in service.runs] == [1, 2]
            assert service.published(OrderBilled) == [OrderBilled(order_id="7")]

If every task waits, time jumps to the next timer, so a backoff of five minutes takes no time.
Virtual time works on the event loop that runs the test, whichever pytest plugin created it.
`simulate` runs whole services through crashes, outages and lost answers that a seed chooses.
Installing Protoflow also installs its pytest plugin, `protoflow.testing.pytest_plugin`.
`protoflow.testing.transports` is the acceptance suite for transports; it needs the extra `testing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protoflow.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from protoflow.testing.assertions import assert_dead_lettered as assert_dead_lettered
    from protoflow.testing.assertions import assert_published as assert_published
    from protoflow.testing.assertions import assert_retried as assert_retried
    from protoflow.testing.handler_context import context as context
    from protoflow.testing.listener import Listener as Listener
    from protoflow.testing.service import PATIENCE as PATIENCE
    from protoflow.testing.service import Run as Run
    from protoflow.testing.service import TestedService as TestedService
    from protoflow.testing.service import run as run
    from protoflow.testing.simulation import Invariant as Invariant
    from protoflow.testing.simulation import Report as Report
    from protoflow.testing.simulation import Scenario as Scenario
    from protoflow.testing.simulation import ServiceProcess as ServiceProcess
    from protoflow.testing.simulation import Simulation as Simulation
    from protoflow.testing.simulation import SimulationFailed as SimulationFailed
    from protoflow.testing.simulation import invariant as invariant
    from protoflow.testing.simulation import simulate as simulate
    from protoflow.testing.virtual_time import VirtualClock as VirtualClock
    from protoflow.testing.virtual_time import VirtualTime as VirtualTime

_HOMES = {
    "Invariant": "simulation",
    "Listener": "listener",
    "PATIENCE": "service",
    "Report": "simulation",
    "Run": "service",
    "Scenario": "simulation",
    "ServiceProcess": "simulation",
    "Simulation": "simulation",
    "SimulationFailed": "simulation",
    "TestedService": "service",
    "VirtualClock": "virtual_time",
    "VirtualTime": "virtual_time",
    "assert_dead_lettered": "assertions",
    "assert_published": "assertions",
    "assert_retried": "assertions",
    "context": "handler_context",
    "invariant": "simulation",
    "run": "service",
    "simulate": "simulation",
}

if not TYPE_CHECKING:
    __getattr__ = lazy_exports(__name__, _HOMES)
