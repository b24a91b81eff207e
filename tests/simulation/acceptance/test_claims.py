"""A model claims what its transport claims, but for what is named here."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from protoflow import transports
from protoflow.config.url import TransportURL
from protoflow.testing.simulation.profiles import PROFILES
from protoflow.transport import Capabilities, TransportSettings

URLS = {
    "sqlite": "sqlite:///{directory}/queue.db",
    "jetstream": "jetstream://127.0.0.1:4222",
    "rabbitmq": "amqp://127.0.0.1",
    "kafka": "kafka://127.0.0.1:9092",
}
#: What is not simulated.
MISSING = {
    "sqlite": {"broadcast", "reads_topics", "max_message_bytes"},
    "jetstream": {"broadcast", "reads_topics", "keeps_settled", "sources"},
    "rabbitmq": {"broadcast", "sources"},
    "kafka": {
        "atomic", "atomic_on_demand", "broadcast", "keeps_settled", "ordered_sources",
        "reads_topics", "sources",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PROFILES)
async def test_a_model_claims_what_its_transport_claims(name: str, tmp_path: Path) -> None:
    url = TransportURL.parse(URLS[name].format(directory=tmp_path))
    real = transports.create(TransportSettings(url=url)).capabilities
    model = PROFILES[name].capabilities
    names = (each.name for each in fields(Capabilities))
    differ = {each for each in names if getattr(real, each) != getattr(model, each)}
    assert differ == MISSING[name]
