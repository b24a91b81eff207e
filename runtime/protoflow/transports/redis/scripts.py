"""Loads the scripts `lua/*.lua`, which run in the server."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the hash by which the server identifies it."""

    text: str
    sha: str


def _read(name: str) -> str:
    folder = resources.files("protoflow.transports.redis") / "lua"
    return (folder / f"{name}.lua").read_text("utf-8")


def _script(name: str, *before: str) -> Script:
    text = "".join((*before, _read(name)))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_COMMON: Final = _read("common")
PUBLISH: Final = _script("publish")
FETCH: Final = _script("fetch", _COMMON)
SETTLE: Final = _script("settle", _COMMON)
RENEW: Final = _script("renew", _COMMON)
RECOVER: Final = _script("recover", _COMMON)
MARK: Final = _script("mark", _COMMON)
JOIN: Final = _script("join", _COMMON)
LEAVE: Final = _script("leave", _COMMON)
SWEEP: Final = _script("sweep", _COMMON)
TRIM: Final = _script("trim")
AVAILABLE: Final = _script("available", _COMMON)
FOREIGN_SETTLE: Final = _script("foreign_settle")
FOREIGN_RENEW: Final = _script("foreign_renew")
FOREIGN_LEAVE: Final = _script("foreign_leave")
