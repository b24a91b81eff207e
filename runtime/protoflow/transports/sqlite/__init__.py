"""`sqlite:///queue.db`: a durable queue in one file, shared by the processes of a machine.

Three slashes name a file in the working directory, and four an absolute path. Every message is
stored once, and a group is a position in its topic. So a group that starts EARLIEST gets the stored
messages: those that no group has taken, and those that some group has not finished.

The order of a key is kept over all members of a group: a message is claimed only if no
earlier one of its key waits, and none is held by another member. A member that fails a message also
settles the later ones of its key (NACK and RELEASE), as the scheduler does.
"""

from __future__ import annotations

import os

from protoflow.config.options import parse_options
from protoflow.error_codes import TRANSPORT_OPTION
from protoflow.errors import ConfigError
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.sqlite.options import SqliteOptions, Synchronous
from protoflow.transports.sqlite.transport import SqliteTransport

__all__ = ["SqliteOptions", "SqliteTransport", "Synchronous", "create"]


def create(settings: TransportSettings) -> Transport:
    """Returns a transport for `sqlite:///relative.db` or `sqlite:////absolute.db`."""
    url = settings.url
    problems = []
    path = url.path.removeprefix("/")
    if url.hosts:
        problems.append(
            "transport: sqlite: a file has no host; write sqlite:///queue.db for a file in the "
            "working directory, sqlite:////var/lib/queue.db for an absolute path"
        )
    elif "\0" in path:
        problems.append("transport: sqlite: the URL has a NUL byte in the name of the file")
    elif not path or path == ":memory:":
        problems.append(
            "transport: sqlite: the URL names no file; write sqlite:///queue.db, or memory:// "
            "for a queue in memory"
        )
    try:
        options = parse_options(SqliteOptions, url.query, settings.options, "sqlite")
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems], code=TRANSPORT_OPTION) from None
    if problems:
        raise ConfigError(problems, code=TRANSPORT_OPTION)
    # Directories may be links, but the file may not (`location.make`).
    directory, name = os.path.split(os.path.abspath(path))
    return SqliteTransport(settings, os.path.join(os.path.realpath(directory), name), options)
