"""The client outside of all processes. It publishes the scenario's messages without faults."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from protoflow.config.settings import Config
from protoflow.contract.spec import PublicationSpec
from protoflow.errors import PublishError
from protoflow.message import Message
from protoflow.output import AnyOutput
from protoflow.publishing.encoder import Encoder
from protoflow.testing.simulation.service_process import SimulationHost

#: How many messages that are none a foreign publisher sends at most.
_BURST = 4


class Client:
    """A `Publisher` outside of all processes, which faults never disturb."""

    def __init__(self, host: SimulationHost, config: Config) -> None:
        self._host = host
        self._encode = Encoder(config, host.broker.now)
        self._garbage = 0

    async def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes outputs; returns their ids."""
        messages = [self._encode(publication, output) for output in outputs]
        await self.publish(*messages)
        return [message.id for message in messages]

    async def publish(self, *messages: Message) -> None:
        """Publishes messages as they are. Raises PublishError."""
        host = self._host
        await asyncio.sleep(host.choices.latency("client.latency"))
        for message in messages:
            fault = host.faults.at("client.publish")
            if fault is not None:
                host.trace.add(
                    host.loop.now, "client", f"fault {fault.kind}", message.id, str(fault)
                )
                like = self._some_message() or message
                for _ in range(host.choices.whole("client.burst", 1, _BURST)):
                    self._publish_garbage(like)
            (error,) = host.broker.publish([message])
            if error is not None:
                raise PublishError(str(error))

    def _some_message(self) -> Message | None:
        """Returns a message of any topic that a group reads, like one from a foreign client."""
        contract = self._host.contract
        found = [each for each in contract.stored_ids.values() if each.topic in contract.by_topic]
        return (
            found[self._host.choices.whole("client.garbage", 0, len(found) - 1)] if found else None
        )

    def _publish_garbage(self, like: Message) -> None:
        """Publishes a message of the same type with an invalid payload."""
        self._garbage += 1
        self._host.broker.publish(
            [
                Message(
                    id=f"garbage-{self._garbage}",
                    topic=like.topic,
                    payload=b"\xff\xff\xff\xff",
                    metadata=like.metadata,
                )
            ]
        )
