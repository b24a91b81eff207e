"""Names of folders: topics and groups, within the length that file systems allow.

Topics and groups are made of `[A-Za-z0-9._-]`; any other character is written as `%` and two hex
digits for each of its bytes, and so is a first dot.
"""

from __future__ import annotations

import re
import uuid
from typing import Final

from protoflow.contract import names as naming

_LIMIT: Final = 200
_OTHER: Final = re.compile(r"^\.|[^A-Za-z0-9._-]")
#: Separates the name of a broadcast group from its unique part; no other name contains it.
_BROADCAST: Final = "~"


def folder(name: str) -> str:
    """Returns the name of the folder of a topic or group."""
    return naming.fit(_OTHER.sub(_escaped, name), _LIMIT)


def broadcast(group: str) -> str:
    """Returns the folder of a new group for one process."""
    return f"{folder(group)}{_BROADCAST}{uuid.uuid4().hex}"


def is_broadcast(folder: str) -> bool:
    """Whether the folder is of a group for one process."""
    return _BROADCAST in folder


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="surrogatepass"))
