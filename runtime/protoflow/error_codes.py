"""The code of each kind of error; `cli/explanations.toml` has the cause and the fix of each.

A code is never given to another kind of error. Errors take it from their class, or from the
argument `code=` if their class has several kinds.
"""

from __future__ import annotations

from typing import Final

# The contract: what the plugin refuses to generate.
NAME_CLASH: Final = "PF101"
PYTHON_NAME: Final = "PF102"
OPTION_VALUE: Final = "PF103"
NAME_RULE: Final = "PF104"
DEAD_LETTER_TOPIC: Final = "PF105"
LOOP: Final = "PF106"
FIELD_ROLE: Final = "PF107"
NO_KEY: Final = "PF108"
NO_TOPIC: Final = "PF109"
RPC_FORM: Final = "PF110"
NO_EFFECT: Final = "PF111"
SHARED_SUBSCRIPTION: Final = "PF112"
UNKNOWN_OPTION: Final = "PF113"
OTHER_OPTIONS_PROTO: Final = "PF114"
PARAMETER: Final = "PF115"
BAD_REQUEST: Final = "PF116"
ASYNCAPI_LINK: Final = "PF117"

# Settings and handlers: what stops a start.
SETTING: Final = "PF201"
TRANSPORT_URL: Final = "PF202"
TRANSPORT_OPTION: Final = "PF203"
CANNOT_LISTEN: Final = "PF204"
MIDDLEWARE: Final = "PF205"
DATABASE: Final = "PF206"
DATABASE_TABLE: Final = "PF207"
NO_OUTBOX: Final = "PF208"
RESOLVED_CONTRACT: Final = "PF209"
HANDLER_CONFLICT: Final = "PF210"
HANDLER_FORM: Final = "PF211"
TOO_LATE: Final = "PF212"
NOT_RUNNING: Final = "PF213"
CAPABILITY: Final = "PF214"
NOT_SHOWN: Final = "PF215"
MISSING_EXTRA: Final = "PF216"
GENCODE: Final = "PF217"
SIMULATION: Final = "PF218"

# The broker.
BROKER: Final = "PF301"
UNREACHABLE: Final = "PF302"
REFUSED_LOGIN: Final = "PF303"
TOPOLOGY: Final = "PF304"
TOPOLOGY_MISSING: Final = "PF305"
LEASE_LOST: Final = "PF306"
POSITION_LOST: Final = "PF307"
NOT_OPEN: Final = "PF308"
OTHER_VERSION: Final = "PF309"
SERVER_TOO_OLD: Final = "PF310"
TLS: Final = "PF311"
DAMAGED: Final = "PF312"
FILE_PLACE: Final = "PF313"
SCHEMA_REGISTRY: Final = "PF314"

# Publishing.
NOT_STORED: Final = "PF401"
REFUSED: Final = "PF402"
NO_SUBSCRIBER: Final = "PF403"
UNCONFIRMED: Final = "PF404"
NO_DELAY: Final = "PF405"
NO_RIGHT_TO_PUBLISH: Final = "PF406"
TOO_LARGE: Final = "PF407"
INVALID_MESSAGE: Final = "PF408"
NOT_PUBLISHING: Final = "PF409"
OTHER_LOOP: Final = "PF410"
ARGUMENT: Final = "PF411"

# Handling.
UNDECODABLE: Final = "PF501"
ENVELOPE: Final = "PF502"
UNKNOWN_TYPE: Final = "PF503"
HANDLER_RESULT: Final = "PF504"
TIMED_OUT: Final = "PF505"
BATCH: Final = "PF506"
NO_TRANSACTION: Final = "PF507"

# Dead letters.
NO_DEAD_LETTER: Final = "PF601"
NOT_REPLAYABLE: Final = "PF602"
NOT_ALL_REPLAYED: Final = "PF603"
HELD_DEAD_LETTERS: Final = "PF604"

# The command.
USAGE: Final = "PF701"
FILE: Final = "PF702"
NO_CONTRACT: Final = "PF703"
TARGET: Final = "PF704"
PROJECT: Final = "PF705"
PROTOC: Final = "PF706"
OLD_CONTRACT: Final = "PF707"
EXPORT: Final = "PF708"
NO_TRANSPORT: Final = "PF709"
INSTALLATION: Final = "PF710"
INTERNAL: Final = "PF799"

# The HTTP API.
REQUEST: Final = "PF801"
FORBIDDEN: Final = "PF802"
NOT_FOUND: Final = "PF803"
CONFLICT: Final = "PF804"
BUSY: Final = "PF805"
PAGE_FAILED: Final = "PF806"

_SUFFIX: Final = len(" [PF101]")


def coded(text: str, code: str) -> str:
    """Returns an error text with its code at the end. If its last line quotes another error, the
    code is that of the quoted error, which is closer to the cause."""
    earlier, newline, line = text.rpartition("\n")
    while (at := line.find(" [PF")) >= 0:
        quoted = line[at : at + _SUFFIX]
        if at + _SUFFIX == len(line):
            return f"{earlier}{newline}{line}"
        line = line[:at] + line[at + _SUFFIX :]
        code = quoted[2:-1]
    return f"{earlier}{newline}{line} [{code}]"
