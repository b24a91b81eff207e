"""Limits how often tokens may be tried."""

from __future__ import annotations

import ipaddress
import time
from collections import deque
from typing import Final

_PERIOD: Final = 60.0
#: The attempts in a period: by one client, and by all clients together.
_OF_ONE, _OF_ALL = 5, 60


class LoginLimit:
    """Allows five attempts a minute for each client, and sixty for all clients together."""

    def __init__(self) -> None:
        self._made: deque[tuple[float, str]] = deque()

    def allows(self, client: str) -> bool:
        """Returns whether a client may try a token; if so, counts the attempt.

        Args:
            client: its address; clients without an address count as one.
        """
        now, client = time.monotonic(), _neighbourhood(client)
        while self._made and now - self._made[0][0] >= _PERIOD:
            self._made.popleft()
        made = sum(other == client for _at, other in self._made)
        allowed = made < _OF_ONE and len(self._made) < _OF_ALL
        if allowed:
            self._made.append((now, client))
        return allowed


def _neighbourhood(client: str) -> str:
    """Returns the address of a client; for IPv6 its network, because a client may use all of it."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if address.version == 4:
        return client
    return str(ipaddress.ip_network((address, 64), strict=False))
