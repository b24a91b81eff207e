"""The first contact: is somebody there, and are we let in?"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError

from protoflow.errors import ConnectionFailedError
from protoflow.transports.kafka.errors import is_denied, transport_error

_PAUSE = 0.25


async def reach(client: Mapping[str, Any], shown: str, seconds: float) -> None:
    """Returns when one of the brokers lets us in.

    aiokafka's own bootstrap makes one error of everything, so that a wrong password looks
    like a broker that is down; this tells them apart, and asks until the time is over.

    Raises:
        ConnectionFailedError: nobody answered in time.
        AuthenticationError: somebody did, and refused us.
    """
    keys = ("client_id", "request_timeout_ms", "ssl_context", "security_protocol")
    arguments = {
        key: value for key, value in client.items() if key in keys or key.startswith("sasl_")
    }
    problem: BaseException | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                for server in client["bootstrap_servers"]:
                    problem = await _try(server, arguments)
                    if problem is None:
                        return
                    if is_denied(problem) or isinstance(problem, ssl.SSLError):
                        raise transport_error(problem, "connecting", shown)
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        raise ConnectionFailedError(
            f"kafka: {shown} cannot be reached within {seconds:g} s"
            f" ({type(problem).__name__ if problem else 'no answer'})"
        ) from problem


async def _try(server: str, arguments: Mapping[str, Any]) -> BaseException | None:
    host, _, port = server.rpartition(":")
    try:
        connection = await create_conn(host.strip("[]"), int(port), **arguments)
    except (OSError, KafkaError) as error:
        return error
    connection.close()
    return None
