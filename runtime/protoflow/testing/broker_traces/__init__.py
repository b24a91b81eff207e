"""Traces of real brokers, and automata that check them against the model of the transport."""

from protoflow.testing.broker_traces.checker import Disagreement, TraceChecker, check
from protoflow.testing.broker_traces.events import Event, read_trace
from protoflow.testing.broker_traces.recorder import RecordedTransport, TraceWriter
from protoflow.testing.broker_traces.rules import RULES, Rules

__all__ = [
    "RULES",
    "Disagreement",
    "Event",
    "RecordedTransport",
    "Rules",
    "TraceChecker",
    "TraceWriter",
    "check",
    "read_trace",
]
