"""A client of the HTTP API of a running process."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from typing import Any
from urllib.parse import quote, urlsplit

import click

from protoflow.errors import AuthenticationError, ConnectionFailedError

_TOKEN = "PROTOFLOW_HTTP_TOKEN"  # noqa: S105  the name of a variable
#: Seconds for a response.
_PATIENCE = 30.0
#: The largest response in bytes.
_LARGEST = 64 * 1024 * 1024


class Client:
    """Sends requests to one process; does not follow redirects.

    PROTOFLOW_HTTP_TOKEN holds the token.

    Args:
        url: the address of its HTTP pages, such as `http://127.0.0.1:8080`.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self._port = parts.port
        except ValueError:
            raise click.UsageError(f"--url: {url} is not a URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise click.UsageError("--url: write http://HOST:PORT or https://HOST:PORT")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise click.UsageError(
                f"--url: give the token in {_TOKEN}, and nothing behind the path"
            )
        self.url = url.rstrip("/")
        self._scheme, self._hostname = parts.scheme, parts.hostname
        self._path = parts.path.rstrip("/")

    def ask(self, method: str, *segments: str) -> Any:
        """Returns the JSON of `/api/v1/...`.

        Raises:
            ConnectionFailedError: there is no answer, or another program answers.
            AuthenticationError: the token is missing, wrong, or read-only.
            click.UsageError: the request is refused, because the handler is unknown or already
            drained.
        """
        path = "/".join((self._path, "api", "v1", *(quote(one, safe="") for one in segments)))
        connection = self._connection()
        try:
            connection.request(method, path, headers=_headers())
            response = connection.getresponse()
            body = response.read(_LARGEST)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise ConnectionFailedError(
                f"{self.url} does not answer: {error or type(error).__name__}; is the process up,"
                " and is http_port set?"
            ) from None
        finally:
            connection.close()
        return self._content(response.status, body)

    def _connection(self) -> http.client.HTTPConnection:
        if self._scheme == "http":
            return http.client.HTTPConnection(self._hostname, self._port, timeout=_PATIENCE)
        return http.client.HTTPSConnection(
            self._hostname, self._port, timeout=_PATIENCE, context=ssl.create_default_context()
        )

    def _content(self, status: int, body: bytes) -> Any:
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ConnectionFailedError(
                f"{self.url} answers {status}, but it is not the HTTP API of a Protoflow service"
            )
        if status < 300:
            return content
        detail = content.get("detail", f"status {status}")
        if status in (401, 403):
            raise AuthenticationError(f"{self.url}: {detail}; the command takes it from {_TOKEN}")
        if status < 500:
            raise click.UsageError(f"{self.url}: {detail}")
        raise ConnectionFailedError(f"{self.url}: {detail}")


def _headers() -> dict[str, str]:
    token = os.environ.get(_TOKEN, "")
    if not token.isprintable():
        raise click.UsageError(f"{_TOKEN} has line breaks; remove them")
    # The header is sent as bytes, because http.client refuses text that is not Latin-1.
    return {"Authorization": f"Bearer {token.encode().decode('latin-1')}"} if token else {}
