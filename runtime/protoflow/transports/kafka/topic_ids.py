"""The ids of topics, which differ after a topic is deleted and created again."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import IncompatibleBrokerVersion

from protoflow.transports.kafka.requests import TopicIds


class TopicIdSource:
    """Asks for the ids of topics."""

    def __init__(self, admin: AIOKafkaAdminClient) -> None:
        self._admin = admin

    async def of(self, topics: Collection[str]) -> dict[str, str]:
        """The ids of those topics that exist; empty text where the broker has none. Raises
        KafkaError."""
        if not topics:
            return {}
        try:
            answer: Any = await self._admin._send_request(TopicIds(sorted(topics)))
        except (NotImplementedError, IncompatibleBrokerVersion):
            return dict.fromkeys(topics, "")  # an old broker, which has no ids
        return {name: id for code, name, id, *_ in answer.topics if not code}
