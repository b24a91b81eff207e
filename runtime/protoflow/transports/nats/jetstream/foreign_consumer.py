"""A stream and a durable consumer of other programs: they are read, and never changed."""

from __future__ import annotations

import logging
from typing import NamedTuple

from protoflow.errors import TransportError
from protoflow.transports.nats.jetstream.api import API, JSON

_log = logging.getLogger("protoflow.transports.jetstream")
_NS = 1_000_000_000


async def problems(api: API, stream: str, consumer: str) -> list[str]:
    """Returns why a consumer cannot be used."""
    name = f"consumer {consumer} of stream {stream}"
    try:
        if await api.stream(stream) is None:
            return [f"stream {stream} is missing; a source names it, so its owner creates it"]
        found = await api.consumer(stream, consumer)
    except TransportError as error:
        return [f"{name}: {error}"]
    if found is None:
        fix = f"nats consumer add {stream} {consumer} --pull --ack explicit"
        return [f"{name} is missing; a source names it, so its owner creates it: {fix}"]
    config = found["config"]
    refused = {
        "it pushes; a pull consumer is needed": config.get("deliver_subject"),
        "its ack_policy must be explicit": config.get("ack_policy") != "explicit",
        "it has priority groups": config.get("priority_groups"),
        "it delivers headers only, without payloads": config.get("headers_only"),
    }
    return [f"{name}: {text}" for text, wrong in refused.items() if wrong]


def lease(config: JSON, wanted: float) -> float:
    """Returns the seconds of a lease: the consumer redelivers after its own `ack_wait`."""
    waits = [config.get("ack_wait") or 0, *(config.get("backoff") or ())]
    return min((wanted, *(float(each) / _NS for each in waits if each)))


class RequestLimits(NamedTuple):
    """The largest request for messages; the server refuses larger ones.

    Attributes:
        batch: messages.
        max_bytes: bytes.
        expires: seconds that it waits at the server.
    """

    batch: int
    max_bytes: int
    expires: float

    def within(self, config: JSON) -> RequestLimits:
        """Returns these limits, or those of a consumer where they are lower."""
        expires = (config.get("max_expires") or 0) / _NS
        return RequestLimits(
            batch=min(self.batch, config.get("max_batch") or self.batch),
            max_bytes=min(self.max_bytes, config.get("max_bytes") or self.max_bytes),
            expires=min(self.expires, expires or self.expires),
        )


def warn_of_limit(stream: str, consumer: str, config: JSON) -> None:
    """Warns if the server drops messages that were delivered too often."""
    most = config.get("max_deliver") or -1
    if most > 0:
        _log.warning(
            "a consumer of another program limits deliveries: a message that is given back this "
            "often, by shutdowns too, is not delivered again",
            extra={"stream": stream, "consumer": consumer, "max_deliver": most},
        )
