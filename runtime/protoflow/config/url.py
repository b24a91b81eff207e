"""Transport URLs, split into public and secret parts."""

from __future__ import annotations

from dataclasses import field

from protoflow.config.secret import Secret
from protoflow.dataclass_record import dataclass_record
from protoflow.error_codes import TRANSPORT_URL
from protoflow.errors import ConfigError


@dataclass_record
class TransportURL:
    """A transport URL in parts; repr and str show no secret.

    Attributes:
        scheme: `kafka`, `sqlite`...
        hosts: pairs of host and port; the port is None if not given.
        path: the part after the hosts, with the leading slash, percent-decoded.
        query: parameters; values of parameters that look secret are hidden in `safe`.
        user: the user name, percent-decoded.
        password: the password.
    """

    scheme: str
    hosts: tuple[tuple[str, int | None], ...] = ()
    path: str = ""
    query: dict[str, str] = field(default_factory=dict, repr=False)
    user: str | None = field(default=None, repr=False)
    password: Secret | None = None

    @classmethod
    def parse(cls, text: str) -> TransportURL:
        """Splits a URL.

        Raises:
            ConfigError: the text is not a URL or is ambiguous; the error contains no secret.
        """
        # imported here, because code that only names URLs needs neither
        from urllib.parse import parse_qsl, unquote

        scheme, separator, rest = text.partition("://")
        if not separator or not scheme.replace("+", "").replace("-", "").isalnum():
            raise ConfigError(
                "transport: not a URL; it looks like sqlite:///queue.db or kafka://host:9092",
                code=TRANSPORT_URL,
            )
        rest, _question, query = rest.partition("?")
        authority, slash, path = rest.partition("/")
        credentials, at, hosts = authority.rpartition("@")
        _refuse_ambiguous(scheme, authority, path, query)
        user, colon, password = credentials.partition(":")
        path = unquote(slash + path)
        if not path.isprintable():
            raise ConfigError(
                f"transport: {scheme}: the path has control characters", code=TRANSPORT_URL
            )
        return cls(
            scheme=scheme.lower(),
            hosts=tuple(_host(scheme, host) for host in hosts.split(",") if host),
            path=path,
            query=dict(parse_qsl(query, keep_blank_values=True)),
            user=unquote(user) if at and user else None,
            password=Secret(unquote(password)) if colon else None,
        )

    @property
    def safe(self) -> str:
        """The URL without user, password and query, for logs."""
        hosts = ",".join(
            (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
            for host, port in self.hosts
        )
        return f"{self.scheme}://{hosts}{self.path}"

    def __str__(self) -> str:
        return self.safe


def _refuse_ambiguous(scheme: str, authority: str, path: str, query: str) -> None:
    """Refuses a password with `/`, `?` or `@`: it would be read as a host and be shown."""
    credentials, at, _ = authority.rpartition("@")
    if authority and not at and "@" in path + query:
        raise ConfigError(
            f"transport: {scheme}: there is an @ after the host; in user and password write / as "
            "%2F, ? as %3F and @ as %40; elsewhere write @ as %40",
            code=TRANSPORT_URL,
        )
    if "@" in credentials and "," in credentials:
        raise ConfigError(
            f"transport: {scheme}: write user and password only once, before the first host; in a "
            "password write , as %2C and @ as %40",
            code=TRANSPORT_URL,
        )


def _host(scheme: str, text: str) -> tuple[str, int | None]:
    host, colon, port = text, "", ""
    if not text.endswith("]"):
        host, colon, port = text.rpartition(":") if ":" in text else (text, "", "")
    bracketed = host.startswith("[") and host.endswith("]")
    if (":" in host or "[" in host or "]" in host) and not bracketed:
        raise ConfigError(
            f"transport: {scheme}: write an IPv6 address in brackets: [::1]", code=TRANSPORT_URL
        )
    host = host[1:-1] if bracketed else host
    if not host or not host.isprintable() or " " in host:
        raise ConfigError(
            f"transport: {scheme}: a host is empty, or has blanks in it", code=TRANSPORT_URL
        )
    if not colon:
        return host, None
    # ASCII is required, because `isdecimal` accepts the digits of all scripts.
    if not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
        raise ConfigError(
            f"transport: {scheme}: the port of a host is not a number up to 65535",
            code=TRANSPORT_URL,
        )
    return host, int(port)
