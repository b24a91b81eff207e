"""The metadata of a message that a page shows besides the payload: headers and key.

Headers of other clients and keys may contain sensitive data, so they are shown only where payloads
are shown.
"""

from __future__ import annotations

import re
from typing import Final

from protoflow import wire
from protoflow.contract.spec import MessageSpec
from protoflow.message import Message
from protoflow.web.host import Host

_HIDDEN: Final = "***"
_OURS: Final = frozenset({wire.CORRELATION_ID, wire.CAUSATION_ID, *wire.TRACE_CONTEXT})
#: Names of headers whose values open doors.
_SECRET: Final = re.compile(r"authori[sz]ation|cookie|token|secret|passw|api[-_]?key", re.I)


def metadata_of(host: Host, message: Message) -> dict[str, str]:
    """Returns the headers: those of the runtime and of CloudEvents, others with `http_payloads`."""
    return {
        name: _HIDDEN if _SECRET.search(name) else value
        for name, value in sorted(message.metadata.items())
        if host.config.http_payloads or wire.reserved(name) or name in _OURS
    }


def key_of(host: Host, message: Message) -> str | None:
    """Returns the key as text, hexadecimal where it is none; None: there is none to be shown."""
    if message.key is None or not host.config.http_payloads:
        return None
    if _is_sensitive(host.messages().get(message.metadata.get(wire.CE_TYPE, ""))):
        return _HIDDEN
    try:
        return message.key.decode()
    except UnicodeDecodeError:
        return f"0x{message.key.hex()}"


def _is_sensitive(spec: MessageSpec | None) -> bool:
    """Whether a sensitive field is the key of the messages of a contract."""
    if spec is None or not spec.partition_key:
        return False
    sensitive = {name for names in spec.sensitive.values() for name in names}
    return not sensitive.isdisjoint(spec.partition_key.split("."))
