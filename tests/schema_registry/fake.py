"""A registry of the tests: it counts requests, and fails, hangs or refuses on demand."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class FakeRegistry:
    """Confluent's interface, with GUIDs, as far as the tests need it.

    Attributes:
        requests: `POST /subjects/x`, in order.
        status: answers everything with this status, if set.
        hang: seconds before each answer.
        answer: answers everything with this, if set.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.bodies: list[Any] = []
        self.headers: list[Any] = []
        self.status = 0
        self.hang = 0.0
        self.answer: dict[str, Any] | None = None
        self.schemas: list[tuple[str, str]] = []
        self.subjects: dict[str, list[str]] = {}
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeRegistry]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/base"
        try:
            yield self
        finally:
            await runner.cleanup()

    def _id(self, schema: str) -> int:
        known = [text for text, _guid in self.schemas]
        if schema not in known:
            self.schemas.append((schema, str(uuid.uuid5(uuid.NAMESPACE_OID, schema))))
            known.append(schema)
        return known.index(schema) + 1

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.rel_url.raw_path.removeprefix("/base")
        self.requests.append(f"{request.method} {path}")
        self.headers.append(request.headers)
        body = await request.json() if request.can_read_body else {}
        self.bodies.append(body)
        await asyncio.sleep(self.hang)
        if self.status:
            return web.json_response({"message": "as asked"}, status=self.status)
        if self.answer is not None:
            return web.json_response(self.answer)
        parts = path.strip("/").split("/")
        if parts[0] == "schemas":
            return self._schema(parts[1], parts[2])
        if parts[0] == "compatibility":
            return web.json_response({"is_compatible": True})
        versions = self.subjects.setdefault(parts[1], [])
        if parts[2:] == ["versions"]:
            if body["schema"] not in versions:
                versions.append(body["schema"])
        elif body["schema"] not in versions:
            return self._missing("no such schema")
        id = self._id(body["schema"])
        version = versions.index(body["schema"]) + 1
        guid = self.schemas[id - 1][1]
        return web.json_response({"id": id, "version": version, "guid": guid})

    def _schema(self, kind: str, wanted: str) -> web.Response:
        for id, (schema, guid) in enumerate(self.schemas, 1):
            if wanted == (str(id) if kind == "ids" else guid):
                return web.json_response({"schema": schema, "schemaType": "PROTOBUF"})
        return self._missing(f"no schema {wanted}")

    def _missing(self, text: str) -> web.Response:
        return web.json_response({"error_code": 40403, "message": text}, status=404)
