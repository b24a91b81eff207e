"""Who acts: the journal records the role and the address of a client with what it did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from protoflow.web.request import Request


@contextmanager
def as_operator(request: Request, detail: str = "") -> Iterator[None]:
    """Within the block, what is done is recorded as done by the client of a request.

    Args:
        request: the client's.
        detail: how it is done.
    """
    from protoflow.journal import acting  # put off: few services have a journal

    who = f"by {request.role.label} from {request.peer or 'a local socket'}"
    token = acting.set(f"{who}; {detail}" if detail else who)
    try:
        yield
    finally:
        acting.reset(token)
