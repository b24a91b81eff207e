"""The servers to try: those in the URL, and those that a server announced."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from protoflow.config.url import TransportURL

_PORT = 4222
_MOST = 64

#: Host and port.
Server = tuple[str, int]


class Servers:
    """Servers in turn: each round begins after the server that was tried last. So a silent server
    delays the others only once and not at every attempt.

    Args:
        url: names the first servers.
    """

    def __init__(self, url: TransportURL) -> None:
        hosts = url.hosts or (("127.0.0.1", None),)
        self._given: list[Server] = [(host, port or _PORT) for host, port in hosts]
        random.shuffle(self._given)  # otherwise all processes of a fleet would use the first server
        self._learned: list[Server] = []
        self._last: Server | None = None

    def learn(self, urls: Iterable[object]) -> None:
        """Adds servers that a server announced, as `host:port`; they replace earlier ones."""
        learned = [server for server in map(_server, urls) if server is not None]
        self._learned = [server for server in learned[:_MOST] if server not in self._given]

    def round(self) -> Sequence[Server]:
        """Yields all servers once, beginning after the one that was tried last."""
        known = [*self._given, *self._learned]
        start = known.index(self._last) + 1 if self._last in known else 0
        return [*known[start:], *known[:start]]

    def trying(self, server: Server) -> None:
        """Notes that this server is being tried."""
        self._last = server

    @property
    def several(self) -> bool:
        """Whether there is a server other than the last one."""
        return len(self._given) + len(self._learned) > 1

    def is_learned(self, server: Server) -> bool:
        """Whether only another server announced it."""
        return server not in self._given


def _server(url: object) -> Server | None:
    host, _, port = str(url).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    return (host, int(port)) if host and port.isascii() and port.isdigit() else None
