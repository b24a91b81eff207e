"""The JSON API of JetStream, used directly, so that the version of the client library does not
limit the requests and answers."""

from __future__ import annotations

import json
from typing import Any

from nats import errors

from protoflow.errors import AuthenticationError, ConnectionFailedError, TransportError
from protoflow.transports.nats.wire.connection import NatsConnection

JSON = dict[str, Any]  # Any: JSON
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = 10037
_TIMEOUT = 5.0


class APIError(TransportError):
    """JetStream refused a request.

    Attributes:
        err_code: the number of the kind of error, from the server.
    """

    def __init__(self, what: str, error: JSON) -> None:
        self.err_code = int(error.get("err_code", 0))
        super().__init__(f"jetstream: {what}: {error.get('description', 'refused')}")


class API:
    """Sends requests to JetStream through the current client.

    Args:
        connection: provides the client.
        domain: the JetStream domain, if it is not the server's own.
    """

    def __init__(self, connection: NatsConnection, domain: str | None = None) -> None:
        self.connection = connection
        self.prefix = f"$JS.{domain}.API" if domain else "$JS.API"

    async def call(self, subject: str, request: JSON | None = None) -> JSON:
        """Sends a request. Raises APIError, or ConnectionFailedError if there is no answer."""
        payload = b"" if request is None else json.dumps(request).encode()
        answer = await self._request(f"{self.prefix}.{subject}", payload)
        if "error" in answer:
            if answer["error"].get("code") in (401, 403):
                raise AuthenticationError(APIError(subject, answer["error"]).args[0])
            raise APIError(subject, answer["error"])
        return answer

    async def _request(self, subject: str, payload: bytes) -> JSON:
        try:
            reply = await self.connection.client.request(subject, payload, timeout=_TIMEOUT)
            answer = json.loads(reply.data)
        except errors.NoRespondersError as error:
            raise ConnectionFailedError(
                "nats: JetStream does not answer; is it enabled (nats-server -js)?"
            ) from error
        except (errors.Error, OSError) as error:
            raise ConnectionFailedError(
                f"nats: no answer from JetStream ({type(error).__name__})"
            ) from error
        except ValueError as error:
            raise ConnectionFailedError(
                f"nats: the answer to {subject} is not from JetStream"
            ) from error
        if not isinstance(answer, dict):
            raise ConnectionFailedError(f"nats: what answers {subject} is not JetStream")
        return answer

    async def stream(self, name: str, subjects: str | None = None) -> JSON | None:
        """Returns a stream's state, with messages by subject on request; None without a stream."""
        request = {"subjects_filter": subjects} if subjects else None
        return await self._found(f"STREAM.INFO.{name}", STREAM_NOT_FOUND, request)

    async def consumer(self, stream: str, name: str) -> JSON | None:
        """Returns the server's state of a consumer; None if there is none."""
        try:
            return await self._found(f"CONSUMER.INFO.{stream}.{name}", CONSUMER_NOT_FOUND)
        except APIError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return None
            raise

    async def create_stream(self, config: JSON) -> JSON:
        """Creates a stream; the answer contains the config as the server understood it."""
        return await self.call(f"STREAM.CREATE.{config['name']}", config)

    async def create_consumer(self, stream: str, config: JSON, action: str = "create") -> JSON:
        """Creates a consumer, which is ephemeral without `durable_name`. It changes an existing one
        only if the action is `update`."""
        subject = f"CONSUMER.CREATE.{stream}"
        if name := config.get("durable_name"):
            subject = f"CONSUMER.DURABLE.CREATE.{stream}.{name}"
        request = {"stream_name": stream, "config": config, "action": action}
        return await self.call(subject, request)

    async def delete_consumer(self, stream: str, name: str) -> None:
        """Removes a consumer."""
        await self.call(f"CONSUMER.DELETE.{stream}.{name}")

    async def last_message(self, stream: str, subject: str) -> JSON | None:
        """Returns the last message of a subject; None if there is none."""
        return await self._message(stream, {"last_by_subj": subject})

    async def message(self, stream: str, sequence: int) -> JSON | None:
        """Returns a message by its sequence; None if it no longer exists."""
        return await self._message(stream, {"seq": sequence})

    async def next_message(self, stream: str, sequence: int, subject: str) -> JSON | None:
        """Returns the first message of a filter from a sequence on; None if there is none."""
        return await self._message(stream, {"seq": sequence, "next_by_subj": subject})

    async def _message(self, stream: str, request: JSON) -> JSON | None:
        answer = await self._found(f"STREAM.MSG.GET.{stream}", MESSAGE_NOT_FOUND, request)
        found: JSON | None = None if answer is None else answer["message"]
        return found

    async def purge(self, stream: str, subject: str) -> int:
        """Removes the messages of a filter; returns how many."""
        answer = await self.call(f"STREAM.PURGE.{stream}", {"filter": subject})
        return int(answer.get("purged", 0))

    async def publish(self, subject: str, payload: bytes) -> None:
        """Publishes one message and waits for the confirmation. Raises TransportError."""
        answer = await self._request(subject, payload)
        if "error" in answer or "seq" not in answer:
            raise APIError(subject, answer.get("error") or {})

    async def _found(self, subject: str, missing: int, request: JSON | None = None) -> JSON | None:
        try:
            return await self.call(subject, request)
        except APIError as error:
            if error.err_code == missing:
                return None
            raise
