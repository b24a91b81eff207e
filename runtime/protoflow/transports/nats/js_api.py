"""The JSON API of JetStream, spoken directly: what a client version knows of streams and
consumers must not decide what we can ask for, or see in the answer."""

from __future__ import annotations

import json
from typing import Any

from nats import errors
from nats.aio.client import Client

from protoflow.errors import (
    AuthenticationError,
    ConnectionFailedError,
    TopologyError,
    TransportError,
)

JSON = dict[str, Any]  # Any: JSON
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = 10037
_TIMEOUT = 5.0


class APIError(TransportError):
    """JetStream refused a request.

    Attributes:
        code: the server's `err_code`.
    """

    def __init__(self, what: str, error: JSON) -> None:
        self.code = int(error.get("err_code", 0))
        super().__init__(f"jetstream: {what}: {error.get('description', 'refused')}")


class API:
    """Requests to JetStream over whatever client there is.

    Args:
        domain: the JetStream domain, if not the server's own.
    """

    def __init__(self, domain: str | None = None) -> None:
        self.prefix = f"$JS.{domain}.API" if domain else "$JS.API"

    async def call(self, client: Client, subject: str, request: JSON | None = None) -> JSON:
        """One request. Raises APIError, or ConnectionFailedError where nobody answers."""
        payload = b"" if request is None else json.dumps(request).encode()
        try:
            reply = await client.request(f"{self.prefix}.{subject}", payload, timeout=_TIMEOUT)
        except errors.NoRespondersError as error:
            raise ConnectionFailedError(
                "nats: JetStream does not answer; is it enabled (nats-server -js)?"
            ) from error
        except (errors.Error, OSError) as error:
            raise ConnectionFailedError(
                f"nats: no answer from JetStream ({type(error).__name__})"
            ) from error
        answer: JSON = json.loads(reply.data)
        if "error" in answer:
            if answer["error"].get("code") in (401, 403):
                raise AuthenticationError(str(APIError(subject, answer["error"])))
            raise APIError(subject, answer["error"])
        return answer

    async def stream(self, client: Client, name: str, subjects: str | None = None) -> JSON | None:
        """What the server knows of a stream, messages by subject on request; None if there
        is none."""
        request = {"subjects_filter": subjects} if subjects else None
        return await self._found(client, f"STREAM.INFO.{name}", STREAM_NOT_FOUND, request)

    async def consumer(self, client: Client, stream: str, name: str) -> JSON | None:
        """What the server knows of a consumer; None if there is none."""
        try:
            return await self._found(client, f"CONSUMER.INFO.{stream}.{name}", CONSUMER_NOT_FOUND)
        except APIError as error:
            if error.code == STREAM_NOT_FOUND:
                return None
            raise

    async def create_stream(self, client: Client, config: JSON) -> JSON:
        """Makes a stream; the answer holds the config as the server understood it."""
        return await self.call(client, f"STREAM.CREATE.{config['name']}", config)

    async def create_consumer(self, client: Client, stream: str, config: JSON) -> JSON:
        """Makes a consumer, never changing one; ephemeral if it has no `durable_name`."""
        subject = f"CONSUMER.CREATE.{stream}"
        if name := config.get("durable_name"):
            subject = f"CONSUMER.DURABLE.CREATE.{stream}.{name}"
        request = {"stream_name": stream, "config": config, "action": "create"}
        return await self.call(client, subject, request)

    async def _found(
        self, client: Client, subject: str, missing: int, request: JSON | None = None
    ) -> JSON | None:
        try:
            return await self.call(client, subject, request)
        except APIError as error:
            if error.code == missing:
                return None
            raise


def raise_all(problems: list[str]) -> None:
    """Raises TopologyError if there are problems, naming all of them."""
    if problems:
        raise TopologyError("\n".join(problems))
