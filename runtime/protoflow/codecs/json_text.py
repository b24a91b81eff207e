"""JSON as RFC 8259 has it: UTF-8, and no lone surrogates."""

from __future__ import annotations

import json
from typing import Any


def loads(payload: bytes) -> Any:
    """The value of a JSON text.

    An escape such as `\\ud800` makes a string that no broker, file or protobuf takes, so what
    holds one is refused here, where it comes in.

    Raises:
        ValueError: it is not JSON, or not text.
        RecursionError: it nests too deeply.
    """
    value = json.loads(payload.decode("utf-8-sig"))
    # Only an escape can make one: UTF-8 has none.
    if b"\\ud" in payload or b"\\uD" in payload:
        json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return value
