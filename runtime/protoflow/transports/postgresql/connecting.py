"""Opens connections, and decides whether their statements are prepared by name.

A pooler in transaction mode may send each transaction of a client to another process of the server,
but a prepared statement exists in one process only. At the login, such a pooler cannot name the
process that will answer. So statements are prepared if the process that answers is the one that the
login named.
"""

from __future__ import annotations

from typing import Any

import asyncpg

#: More than the number of this transport's statements.
_CACHED = 200


class Stateless(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Sets nothing for a session, so that nothing is reset: a pooler may be between."""

    def get_reset_query(self) -> str:
        """Returns what asyncpg sends when a connection goes back to its pool: nothing."""
        return ""


class Connector:
    """Opens the connections of a pool.

    Args:
        prepares: whether to prepare statements; None: if no pooler is between.
    """

    def __init__(self, prepares: bool | None) -> None:
        self._prepares = prepares

    async def __call__(self, *arguments: Any, **settings: Any) -> Any:  # Any: those of asyncpg
        """Opens a connection. Raises what asyncpg raises."""
        if self._prepares is not False:
            connection = await asyncpg.connect(
                *arguments,
                statement_cache_size=_CACHED,
                max_cached_statement_lifetime=0,
                **settings,
            )
            if self._prepares or await _is_direct(connection):
                return connection
            self._prepares = False
            await connection.close()
        return await asyncpg.connect(*arguments, statement_cache_size=0, **settings)


async def _is_direct(connection: Any) -> bool:
    """Whether the process that answers is the one that the login named."""
    try:
        process = connection.get_server_pid()
        answer = await connection.execute(f"SELECT WHERE pg_backend_pid() = {process}")
    except BaseException:
        connection.terminate()
        raise
    return bool(answer == "SELECT 1")
