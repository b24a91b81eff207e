"""Connections for read-only commands: they create no file and no tables."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from protoflow.config import Config
from protoflow.connection import Connection
from protoflow.transport import KeepsTables


@asynccontextmanager
async def connection(config: Config) -> AsyncIterator[Connection]:
    """Opens a connection while the block runs; a missing file counts as empty.

    Args:
        config: the settings.

    Raises:
        ConnectionFailedError, AuthenticationError: as when a service starts.
    """
    made = Connection(config)
    with tempfile.TemporaryDirectory(prefix="protoflow-") as scratch:
        transport: Any = made.transport
        if config.url.scheme == "sqlite" and _is_makeable(Path(transport.path)):
            transport.path = str(Path(scratch) / Path(transport.path).name)
        if isinstance(transport, KeepsTables):
            transport.creates_tables = False
        async with made:
            yield made


def _is_makeable(file: Path) -> bool:
    """Whether the file does not exist but could be created."""
    return file.parent.is_dir() and not file.exists() and not file.is_symlink()
