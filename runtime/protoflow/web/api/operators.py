"""Operators: the journal records the role and the address of a client with each action."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from protoflow.web.request import Request

#: The prefix of the detail of an action that failed.
FAILED: Final = "failed: "
_BY: Final = re.compile(r"by (operate|read|none) from ([^;]*)(?:; )?(.*)", re.DOTALL)


def operator_of(detail: str) -> dict[str, str]:
    """Returns role and address of what `as_operator` recorded, empty where no page did it; how it
    was done; and the result."""
    found = _BY.fullmatch(detail)
    role, address, rest = found.groups() if found else ("", "", detail)
    rest, failed, reason = rest.rpartition(FAILED)
    result = f"failed: {reason}" if failed else "done"
    return {
        "role": role, "address": address, "detail": (rest if failed else reason).rstrip("; "),
        "result": result,
    }  # fmt: skip


@contextmanager
def as_operator(request: Request, detail: str = "") -> Iterator[None]:
    """Records actions inside the block as actions of the client of a request.

    Args:
        request: the request of the client.
        detail: further details of the action.
    """
    from protoflow.journal import acting  # imported here, because few services have a journal

    who = f"by {request.role.label} from {request.peer or 'a local socket'}"
    token = acting.set(f"{who}; {detail}" if detail else who)
    try:
        yield
    finally:
        acting.reset(token)
