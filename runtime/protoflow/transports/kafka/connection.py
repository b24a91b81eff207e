"""The first connection: whether a broker answers and accepts the credentials."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError

from protoflow.errors import ConnectionFailedError
from protoflow.transports.kafka.errors import is_denied, transport_error

_PAUSE = 0.25
#: Seconds for each host, because a host that accepts connections may never answer.
_PATIENCE = 3.0


async def reach(client: Mapping[str, Any], shown: str, seconds: float) -> str:
    """Returns the first broker, as `host:port`, that accepts the credentials.

    aiokafka reports the same error for a wrong password and for a stopped broker. This function
    distinguishes them, and repeats the attempt until the time is over.

    Raises:
        ConnectionFailedError: no broker answered in time.
        AuthenticationError: a broker answered and refused the credentials.
    """
    servers: list[str] = list(client["bootstrap_servers"])
    random.shuffle(servers)
    problems: dict[str, BaseException] = {}
    patience = min(_PATIENCE, seconds / len(servers))
    try:
        async with asyncio.timeout(seconds):
            while True:
                for server in servers:
                    problem = await _try(server, client, patience)
                    if problem is None:
                        return server
                    problems[server] = problem
                    if is_denied(problem) or isinstance(problem, ssl.SSLError):
                        raise transport_error(problem, "connecting", shown)
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        reasons = "; ".join(
            f"{server}: {_reason(problems.get(server))}" for server in client["bootstrap_servers"]
        )
        last = next(iter(problems.values()), None)
        raise ConnectionFailedError(
            f"kafka: {shown} cannot be reached within {seconds:g} s ({reasons})"
        ) from last


async def prefer_who_answers(client: dict[str, Any]) -> None:
    """Puts an answering broker first.

    aiokafka asks brokers in turn, and would wait for the full timeout of a silent one.
    """
    servers: list[str] = list(client["bootstrap_servers"])
    if len(servers) < 2:
        return
    asking = {asyncio.ensure_future(_try(server, client, _PATIENCE)): server for server in servers}
    try:
        for answer in asyncio.as_completed(asking):
            if await answer is None:
                break
    finally:
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
    for task, server in asking.items():
        if not task.cancelled() and task.result() is None:
            prefer(client, server)
            return


def prefer(client: dict[str, Any], server: str) -> None:
    """Puts a broker first."""
    others = [item for item in client["bootstrap_servers"] if item != server]
    client["bootstrap_servers"] = [server, *others]


async def _try(server: str, client: Mapping[str, Any], seconds: float) -> BaseException | None:
    keys = ("client_id", "request_timeout_ms", "ssl_context", "security_protocol")
    arguments = {
        key: value for key, value in client.items() if key in keys or key.startswith("sasl_")
    }
    host, _, port = server.rpartition(":")
    try:
        async with asyncio.timeout(seconds):
            connection = await create_conn(host.strip("[]"), int(port), **arguments)
    except (OSError, KafkaError, TimeoutError) as error:
        return error
    # the credentials were accepted, so other errors do not matter
    with contextlib.suppress(Exception):
        connection.close()
    return None


def _reason(problem: BaseException | None) -> str:
    """Returns the problem of a host, and what to check."""
    if isinstance(problem, socket.gaierror):
        return "the name is unknown; check the host in the URL and the name service"
    if isinstance(problem, ConnectionRefusedError):
        return "no program listens there; check host and port, and whether the broker runs"
    if problem is None or isinstance(problem, TimeoutError):
        return "no answer; check address and firewall, and whether the port is one of Kafka's"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return f"{type(problem).__name__}; check whether the port wants TLS (kafka+ssl://) or a user"
