"""Connections for read-only commands: they create no file and no tables."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from protoflow.config import Config
from protoflow.config.named_transports import DEFAULT
from protoflow.connection import Connection
from protoflow.routing.transport import learn, parts_of
from protoflow.transport import KeepsTables, SubscriptionSettings


@asynccontextmanager
async def connection(
    config: Config, subscriptions: Sequence[SubscriptionSettings] = ()
) -> AsyncIterator[Connection]:
    """Opens a connection while the block runs; a missing file counts as empty.

    Args:
        config: the settings.
        subscriptions: those of the contract, whose places are read.

    Raises:
        ConnectionFailedError, AuthenticationError: as when a service starts.
    """
    made = Connection(config)
    learn(made.transport, subscriptions)
    with tempfile.TemporaryDirectory(prefix="protoflow-") as scratch:
        parts: Mapping[str, Any] = parts_of(made.transport)
        for name, transport in parts.items():
            scheme = config.transport_named(name or DEFAULT).url.scheme
            if scheme == "sqlite" and _is_makeable(Path(transport.path)):
                transport.path = str(Path(scratch) / name / Path(transport.path).name)
                Path(transport.path).parent.mkdir(exist_ok=True)
            if isinstance(transport, KeepsTables):
                transport.creates_tables = False
        async with made:
            yield made


def _is_makeable(file: Path) -> bool:
    """Whether the file does not exist but could be created."""
    return file.parent.is_dir() and not file.exists() and not file.is_symlink()
