"""Deterministic simulation: services on a simulated broker with faults, seed by seed."""

from protoflow.testing.simulation.explorer import Report, SimulationFailed, simulate
from protoflow.testing.simulation.scenario import Invariant, Scenario, invariant
from protoflow.testing.simulation.service_process import ServiceProcess
from protoflow.testing.simulation.world import Simulation

__all__ = [
    "Invariant",
    "Report",
    "Scenario",
    "ServiceProcess",
    "Simulation",
    "SimulationFailed",
    "invariant",
    "simulate",
]
