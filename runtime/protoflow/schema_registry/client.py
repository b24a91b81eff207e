"""The HTTP interface of the registry."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from uuid import UUID

from protoflow.codecs.framing import LARGEST_ID
from protoflow.config.url import TransportURL
from protoflow.errors import ConfigError, MissingExtraError, SchemaRegistryError
from protoflow.schema_registry.options import RegistryOptions

if TYPE_CHECKING:
    import aiohttp

_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
#: Answers after which the same request may succeed.
_TEMPORARY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_NOT_FOUND: Final = 404
_INCOMPATIBLE: Final = 409
_LONGEST_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered schema.

    Attributes:
        id: its id.
        version: its version in the subject; 0 if the registry does not report it.
        guid: its GUID; None if the registry has none.
    """

    id: int
    version: int = 0
    guid: UUID | None = None


class NotRegisteredError(SchemaRegistryError):
    """The registry does not have the subject, the schema or the id."""


class IncompatibleError(SchemaRegistryError):
    """The registry refused a schema that is incompatible with an earlier one."""


class RegistryClient:
    """Sends requests to the registry, to its next host if one cannot be reached.

    Args:
        url: the address; may name several hosts.
        options: the options.
    """

    def __init__(self, url: TransportURL, options: RegistryOptions) -> None:
        self.url = url.safe
        self._timeout = options.timeout
        self._bases = [f"{url.scheme}://{_host(*host)}{url.path.rstrip('/')}" for host in url.hosts]
        self._headers = {"Content-Type": _CONTENT_TYPE, "Accept": f"{_CONTENT_TYPE}, */*;q=0.5"}
        if authorization := _authorization(url, options):
            self._headers["Authorization"] = authorization
        try:
            encrypted = url.scheme == "https"
            self._tls = options.tls_context("schema_registry", "https", encrypted=encrypted)
        except ConfigError as error:
            raise ConfigError(one.removeprefix("transport: ") for one in error.problems) from error

    async def register(self, subject: str, schema: Mapping[str, Any]) -> Registered:
        """Registers a schema, or finds it. Raises SchemaRegistryError, IncompatibleError."""
        found = await self._post(f"/subjects/{quote(subject, safe='')}/versions", schema)
        return _registered(found)

    async def look_up(self, subject: str, schema: Mapping[str, Any]) -> Registered:
        """Finds a schema. Raises NotRegisteredError, SchemaRegistryError."""
        return _registered(await self._post(f"/subjects/{quote(subject, safe='')}", schema))

    async def schema(self, schema: int | UUID) -> str:
        """Returns a schema. Raises NotRegisteredError, SchemaRegistryError."""
        kind = "guids" if isinstance(schema, UUID) else "ids"
        found = await self._request("GET", f"/schemas/{kind}/{schema}", None)
        text, type = found.get("schema"), found.get("schemaType", "PROTOBUF")
        if not isinstance(text, str):
            raise SchemaRegistryError(f"{self.url}: schema {schema} has no text")
        if type != "PROTOBUF":
            raise NotRegisteredError(f"{self.url}: schema {schema} is {type}, not PROTOBUF")
        return text

    async def incompatibilities(self, subject: str, schema: Mapping[str, Any]) -> Sequence[str]:
        """Returns why a schema would be refused; empty if it would not."""
        path = f"/compatibility/subjects/{quote(subject, safe='')}/versions/latest?verbose=true"
        try:
            found = await self._post(path, schema)
        except NotRegisteredError:
            return ()  # there is no version yet
        if found.get("is_compatible", True):
            return ()
        return tuple(map(str, found.get("messages") or ("the registry gives no reason",)))

    async def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._request("POST", path, json.dumps(body).encode())

    async def _request(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        """Sends a request to the first host that answers it."""
        error = SchemaRegistryError(f"{self.url}: no host")
        for base in tuple(self._bases):
            try:
                return await self._send(method, base, path, body)
            except SchemaRegistryError as problem:
                if not problem.temporary:
                    raise
                error = problem
                if self._bases[0] == base:  # no other request has done it meanwhile
                    self._bases.append(self._bases.pop(0))
        raise error

    async def _send(self, method: str, base: str, path: str, body: bytes | None) -> dict[str, Any]:
        session = self._session()
        import aiohttp  # after the check that it is installed

        try:
            async with (
                session,
                session.request(
                    method, _as_is(base + path), data=body, allow_redirects=False
                ) as answer,
            ):
                status, content = answer.status, await answer.read()
        except TimeoutError:
            text = f"schema registry {base}: no answer within {self._timeout:g} s"
            raise SchemaRegistryError(text, temporary=True) from None
        except (aiohttp.ClientError, OSError) as error:
            text = f"schema registry {base}: {type(error).__name__}: {error}"
            raise SchemaRegistryError(text[:_LONGEST_TEXT], temporary=True) from error
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if status == 200 and isinstance(found, dict):
            return found
        raise _error(f"schema registry {base}", status, found)

    def _session(self) -> aiohttp.ClientSession:
        """Returns a session for one request: requests are rare, and so none stays open."""
        try:
            import aiohttp
        except ImportError:
            raise MissingExtraError("registry", "aiohttp") from None
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            headers=self._headers,
        )  # fmt: skip


def _authorization(url: TransportURL, options: RegistryOptions) -> str:
    if options.token:
        return f"Bearer {options.token.reveal()}"
    user, password = options.login(url)
    if user is None:
        return ""
    login = f"{user}:{password.reveal() if password else ''}"
    return f"Basic {base64.b64encode(login.encode()).decode()}"


def _as_is(url: str) -> Any:
    from yarl import URL  # subjects contain escaped slashes, which must stay escaped

    return URL(url, encoded=True)


def _host(name: str, port: int | None) -> str:
    host = f"[{name}]" if ":" in name else name
    return host if port is None else f"{host}:{port}"


def _registered(found: Mapping[str, Any]) -> Registered:
    id, version = found.get("id"), found.get("version")
    if not isinstance(id, int) or not 0 <= id <= LARGEST_ID:
        raise SchemaRegistryError(
            "the schema registry answered without an id that a frame can hold"
        )
    try:
        guid = UUID(found["guid"])
    except (KeyError, TypeError, ValueError, AttributeError):  # the registry has no GUIDs
        guid = None
    return Registered(id, version if isinstance(version, int) else 0, guid)


def _error(where: str, status: int, found: Any) -> SchemaRegistryError:
    message = found.get("message") if isinstance(found, dict) else None
    text = str(message or f"HTTP status {status}")[:_LONGEST_TEXT]
    text = f"{where}: {text.rstrip('.')}"
    if status in (401, 403):
        text = f"{where}: refused the credentials (HTTP status {status})"
    if status == _NOT_FOUND:
        if message and "error_code" in found:
            return NotRegisteredError(text)
        text = f"{text}, not from a schema registry; check the path of the URL"
    if status == _INCOMPATIBLE:
        return IncompatibleError(text)
    return SchemaRegistryError(text, temporary=status in _TEMPORARY)
