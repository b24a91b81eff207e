"""Records with a right checksum and a wrong head, as another program could append them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

from protoflow.transports.file.log_appender import LogAppender
from protoflow.transports.file.names import folder

from tests.hostile.table import Hostile
from tests.hostile.writers import MemoryWriter, Parcel

_HEADS: Final[dict[str, bytes]] = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "text": b'"x"',
    "truncated": b'{"id":"a"',
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"id":"\xff","metadata":{}}',
    "surrogate": b'{"id":"\\ud800","metadata":{}}',
    "id is a number": b'{"id":1,"metadata":{}}',
    "id is missing": b'{"metadata":{}}',
    "metadata are a list": b'{"id":"a","metadata":["b"]}',
    "metadata are numbers": b'{"id":"a","metadata":{"b":1}}',
    "key is no hex": b'{"id":"a","metadata":{},"key":"xyz"}',
    "key is a number": b'{"id":"a","metadata":{},"key":5}',
    "due is a text": b'{"id":"a","metadata":{},"due":"soon"}',
    "due is a list": b'{"id":"a","metadata":{},"due":[]}',
    "group is a number": b'{"id":"a","metadata":{},"group":1}',
}


class FileWriter(MemoryWriter):
    """Appends to the log of a topic. `native` is the head of the record."""

    def rows(self) -> list[Hostile]:
        return [
            Hostile(field="head of the record", kind=kind, native=head)
            for kind, head in _HEADS.items()
        ]

    async def write(self, parcel: Parcel) -> bool:
        if parcel.native is None:
            return await super().write(parcel)
        topic = Path(self._lab.url.removeprefix("file://")) / folder(parcel.topic)
        salt = json.loads((topic / "topic.json").read_text())["salt"]
        log = LogAppender(str(topic), salt, 1 << 30, durable=False)
        head = parcel.native
        part = len(head).to_bytes(4, "little") + head + (parcel.payload or b"")
        log.append([part], time.time())
        log.close()
        return True
