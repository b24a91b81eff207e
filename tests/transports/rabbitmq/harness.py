"""The harness of the shipped suite, for RabbitMQ's own quirks."""

from __future__ import annotations

from pathlib import Path

from protoflow.testing import Listener as Listener
from protoflow.testing.transports import Member as Member
from protoflow.testing.transports import TransportHarness
from protoflow.testing.transports import numbers as numbers
from protoflow.testing.transports import payloads as payloads
from protoflow.testing.transports.harness import MEGABYTE as MEGABYTE

from tests.acceptance.targets import Target

__all__ = ["MEGABYTE", "Harness", "Listener", "Member", "numbers", "payloads"]


class Harness(TransportHarness):
    """The harness with groups by their plain name: queues are named after topic and group."""

    def __init__(self, target: Target, url: str, directory: Path) -> None:
        super().__init__(target.at(url))
        self.url = url
        self.directory = directory

    def group(self, name: str = "billing") -> str:
        """The name itself."""
        return name
