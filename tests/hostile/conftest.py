"""The fixtures of the acceptance suite, and a transport's writer."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import harness, pytest_configure, pytest_generate_tests, target
from tests.acceptance.harness import Harness
from tests.hostile.writers import MemoryWriter, SqliteWriter, Writer

__all__ = ["harness", "pytest_configure", "pytest_generate_tests", "target"]


def writer_for(harness: Harness) -> Writer:
    """The raw client for the harness's broker."""
    match harness.target.name:
        case "memory":
            return MemoryWriter(harness)
        case "sqlite":
            return SqliteWriter(harness)
        case "file":
            from tests.hostile.file import FileWriter

            return FileWriter(harness)
        case "kafka":
            from tests.hostile.kafka import KafkaWriter

            return KafkaWriter(harness)
        case "rabbitmq":
            from tests.hostile.rabbitmq import RabbitWriter

            return RabbitWriter(harness)
        case "jetstream":
            from tests.hostile.jetstream import JetStreamWriter

            return JetStreamWriter(harness)
        case "redis":
            from tests.hostile.redis import RedisWriter

            return RedisWriter(harness)
    pytest.skip("capability: at_least_once")


@pytest.fixture
def writer(harness: Harness) -> Writer:
    return writer_for(harness)
