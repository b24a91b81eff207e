"""The options for TLS and credentials, which have the same names on every transport."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from protoflow.config.secret import Secret
from protoflow.config.url import TransportURL
from protoflow.error_codes import TRANSPORT_OPTION
from protoflow.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TlsOptions:
    """The verification of the server, and the client's certificate.

    The options of a transport inherit this class. It has no slots, because such classes inherit
    `CredentialOptions`, too.

    Attributes:
        tls_ca_file: a PEM file with the trusted authorities; None means those of the system.
        tls_cert_file: a PEM file with this client's certificate.
        tls_key_file: a PEM file with the key, if `tls_cert_file` does not contain it.
        tls_key_password: the password of the key.
        tls_verify: verify that a trusted authority signed the server's certificate; turn it off for
            experiments only.
        tls_verify_hostname: verify that the certificate names the server's host.
        tls_server_name: the name in the server's certificate, if it is not the host.
    """

    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_key_password: Secret | None = None
    tls_verify: bool = True
    tls_verify_hostname: bool = True
    tls_server_name: str | None = None

    def tls_problems(self) -> Iterator[str]:
        """Yields an error text for each contradiction."""
        if self.tls_key_file and not self.tls_cert_file:
            yield "option tls_key_file needs tls_cert_file"
        if self.tls_key_password and not self.tls_cert_file:
            yield "option tls_key_password needs tls_cert_file"
        if self.tls_server_name and not (self.tls_verify and self.tls_verify_hostname):
            yield "option tls_server_name needs tls_verify and tls_verify_hostname"

    def tls_context(self, transport: str, scheme: str, *, encrypted: bool) -> ssl.SSLContext | None:
        """Returns the TLS context of a connection; None if it is not encrypted.

        Args:
            transport: the name for error texts.
            scheme: the URL scheme that encrypts, for error texts.
            encrypted: whether the URL has that scheme.

        Raises:
            ConfigError: a file cannot be loaded, or an option is set that has no effect.
        """
        if encrypted:
            return self._context(transport)
        given = [
            field.name
            for field in fields(self)
            if field.name.startswith("tls_") and getattr(self, field.name) != field.default
        ]
        if given:
            raise ConfigError(
                f"transport: {transport}: option {given[0]} needs the scheme {scheme}://",
                code=TRANSPORT_OPTION,
            )
        return None

    def _context(self, transport: str) -> ssl.SSLContext:
        context = _NamedServer(ssl.PROTOCOL_TLS_CLIENT)
        context.server_name = self.tls_server_name
        name = path = ""
        try:
            if self.tls_ca_file:
                name, path = "tls_ca_file", self.tls_ca_file
                context.load_verify_locations(cafile=path)
            else:
                context.load_default_certs()
            if self.tls_cert_file:
                name, path = "tls_cert_file or tls_key_file", self.tls_cert_file
                password = self.tls_key_password.reveal() if self.tls_key_password else ""
                # The password is text, because OpenSSL would otherwise ask on the terminal.
                context.load_cert_chain(path, self.tls_key_file, password)
        except OSError as error:  # ssl.SSLError is an OSError
            raise ConfigError(
                f"transport: {transport}: option {name}: {path} cannot be loaded:"
                f" {error.strerror or type(error).__name__}",
                code=TRANSPORT_OPTION,
            ) from error
        context.check_hostname = self.tls_verify_hostname and self.tls_verify
        if not self.tls_verify:
            context.verify_mode = ssl.CERT_NONE
        return context


class _NamedServer(ssl.SSLContext):
    """Expects a given name in the server's certificate, for any host."""

    server_name: str | None = None

    def wrap_bio(self, *arguments: Any, **keywords: Any) -> ssl.SSLObject:
        """Wraps like `ssl.SSLContext`; asyncio passes `server_hostname` as a keyword."""
        if self.server_name:
            keywords["server_hostname"] = self.server_name
        return super().wrap_bio(*arguments, **keywords)


@dataclass(frozen=True, kw_only=True)
class CredentialOptions:
    """User and password; those in the URL have priority.

    Attributes:
        username: the user, if the URL names none.
        password: the password, if the URL has none.
    """

    username: str | None = None
    password: Secret | None = None

    def login(self, url: TransportURL) -> tuple[str | None, Secret | None]:
        """Returns user and password of the URL, or those of the options."""
        if url.user is not None:
            return url.user, url.password or self.password
        return self.username, self.password
