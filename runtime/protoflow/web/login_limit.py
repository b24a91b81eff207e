"""How often tokens may be tried."""

from __future__ import annotations

import ipaddress
import time
from collections import deque
from typing import Final

_PERIOD: Final = 60.0
#: Attempts in a period: of one client, and of all of them together.
_OF_ONE, _OF_ALL = 5, 60


class LoginLimit:
    """Five attempts a minute for each client, and sixty for all of them together."""

    def __init__(self) -> None:
        self._made: deque[tuple[float, str]] = deque()

    def allows(self, client: str) -> bool:
        """Whether a client may send a token once more; counts it if so.

        Args:
            client: its address; all without one are one client.
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
    """The address of a client; of IPv6 the network, for a client has all of its addresses."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if address.version == 4:
        return client
    return str(ipaddress.ip_network((address, 64), strict=False))
