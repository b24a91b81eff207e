"""Refuses targets that are not public (server-side request forgery).

Every address is checked when its socket is made, after the last resolution of its name. So a name
whose address changes after a check does not pass, and neither does a literal address.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
#: All public IPv6 addresses are in this network.
_GLOBAL: Final = ipaddress.IPv6Network("2000::/3")
#: The prefix of IPv4 addresses that a NAT64 gateway translates (RFC 6052).
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class ForbiddenAddressError(OSError):
    """A target is in a network to which nothing may be sent."""


class AddressGuard:
    """Makes the sockets of requests to targets.

    Args:
        allowed: networks that are allowed although they are not public.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = [ipaddress.ip_network(network) for network in allowed]

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Returns a socket for an entry of `getaddrinfo`. Raises ForbiddenAddressError."""
        family, kind, protocol, _, address = info
        if not self.allows(address[0]):
            raise ForbiddenAddressError(
                errno.EACCES,
                f"{address[0]} is not public; if the target is yours, add its network to"
                " allowed_networks",
            )
        return socket.socket(family=family, type=kind, proto=protocol)

    def allows(self, address: str) -> bool:
        """Whether requests may go to an address."""
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return self._allows(mapped or ip)

    def _allows(self, ip: _Address) -> bool:
        return any(ip in network for network in self._allowed) or _is_public(ip)


def _is_public(ip: _Address) -> bool:
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not (ip.is_multicast or ip.is_reserved)
    if ip in _NAT64:
        return _is_public(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF))
    inner = [ip.sixtofour, *(ip.teredo or ())]
    return ip.is_global and ip in _GLOBAL and all(_is_public(one) for one in inner if one)
