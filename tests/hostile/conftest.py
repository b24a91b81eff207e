"""The fixtures of the acceptance suite, and a transport's writer."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import lab, pytest_configure, pytest_generate_tests
from tests.acceptance.lab import Lab
from tests.hostile.writers import MemoryWriter, SqliteWriter, Writer

__all__ = ["lab", "pytest_configure", "pytest_generate_tests"]


def writer_for(lab: Lab) -> Writer:
    """The raw client for the lab's broker."""
    match lab.target.name:
        case "memory":
            return MemoryWriter(lab)
        case "sqlite":
            return SqliteWriter(lab)
        case "kafka":
            from tests.hostile.kafka import KafkaWriter

            return KafkaWriter(lab)
        case "rabbitmq":
            from tests.hostile.rabbitmq import RabbitWriter

            return RabbitWriter(lab)
        case "jetstream":
            from tests.hostile.jetstream import JetStreamWriter

            return JetStreamWriter(lab)
    pytest.skip("capability: at_least_once")


@pytest.fixture
def writer(lab: Lab) -> Writer:
    return writer_for(lab)
