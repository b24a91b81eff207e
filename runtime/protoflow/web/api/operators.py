"""Operators: the journal records the role and the address of a client with each action."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from protoflow.web.request import Request


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
