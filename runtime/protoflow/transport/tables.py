"""A transport's own tables and their version."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class KeepsTables(Protocol):
    """Optional: the transport keeps topics in tables, which `protoflow topology apply` creates and
    changes.

    Attributes:
        creates_tables: whether `open` creates them if they are missing.
    """

    creates_tables: bool

    async def apply_tables(self) -> None:
        """Migrates the tables to the version of this Protoflow; the transport need not be open.

        Raises:
            ConnectionFailedError, AuthenticationError: the server cannot be used.
            TopologyError: the tables have a later version, or the role may not change them.
        """
        ...
