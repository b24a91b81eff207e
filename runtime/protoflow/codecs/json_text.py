"""JSON as defined by RFC 8259: UTF-8 without lone surrogates."""

from __future__ import annotations

import json
from typing import Any


def loads(payload: bytes) -> Any:
    """Returns the value of a JSON text.

    An escape such as `\\ud800` makes a string that brokers, files and protobuf refuse, so such a
    text is refused here, on arrival.

    Raises:
        ValueError: the text is not JSON, or the bytes are not text.
        RecursionError: the text is nested too deeply.
    """
    value = json.loads(payload.decode("utf-8-sig"))
    # Only an escape can make a lone surrogate: UTF-8 has none.
    if b"\\ud" in payload or b"\\uD" in payload:
        json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return value
