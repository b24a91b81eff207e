"""The servers to try: those of the URL, and those that a server announced."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from protoflow.config.url import TransportURL

_PORT = 4222
_MOST = 64

#: Host and port.
Server = tuple[str, int]


class Servers:
    """Servers in turn: each round begins after the one that was tried last, so a server that is
    silent holds up the others once and not at every attempt.

    Args:
        url: names the first ones.
    """

    def __init__(self, url: TransportURL) -> None:
        hosts = url.hosts or (("127.0.0.1", None),)
        self._given: list[Server] = [(host, port or _PORT) for host, port in hosts]
        random.shuffle(self._given)  # or all processes of a fleet would sit on the first
        self._learned: list[Server] = []
        self._last: Server | None = None

    def learn(self, urls: Iterable[object]) -> None:
        """Adds servers that a server announced, as `host:port`, in place of earlier ones."""
        learned = [server for server in map(_server, urls) if server is not None]
        self._learned = [server for server in learned[:_MOST] if server not in self._given]

    def round(self) -> Sequence[Server]:
        """All of them, each once, beginning after the one that was tried last."""
        known = [*self._given, *self._learned]
        start = known.index(self._last) + 1 if self._last in known else 0
        return [*known[start:], *known[:start]]

    def trying(self, server: Server) -> None:
        """This one is tried now."""
        self._last = server

    @property
    def several(self) -> bool:
        """Whether there is another one than the last."""
        return len(self._given) + len(self._learned) > 1

    def is_learned(self, server: Server) -> bool:
        """Whether it is known from a server only."""
        return server not in self._given


def _server(url: object) -> Server | None:
    host, _, port = str(url).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    return (host, int(port)) if host and port.isascii() and port.isdigit() else None
