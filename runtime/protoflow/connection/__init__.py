"""Publishing without consuming: `connect` for the event loop, `connect_sync` without one.

Names are loaded when first used, because few programs need both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protoflow.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from protoflow.connection.connection import Connection as Connection
    from protoflow.connection.connection import connect as connect
    from protoflow.connection.connection import journal_for as journal_for
    from protoflow.connection.connection import transport_for as transport_for
    from protoflow.connection.connection import transport_settings as transport_settings
    from protoflow.connection.connection import warn_of_memory as warn_of_memory
    from protoflow.connection.sync_connection import SyncConnection as SyncConnection
    from protoflow.connection.sync_connection import connect_sync as connect_sync
else:
    _ONE = ("Connection", "connect", "journal_for", "transport_for", "transport_settings")
    __getattr__ = lazy_exports(
        __name__,
        {
            **dict.fromkeys((*_ONE, "warn_of_memory"), "connection"),
            **dict.fromkeys(("SyncConnection", "connect_sync"), "sync_connection"),
        },
    )
