"""Removes the values of sensitive fields from texts, and makes texts safe to show.

The text of an error may contain the message in any form, and any content that a sender wrote. If a
message has sensitive fields, such a text is shown only after redaction. A text that cannot be
redacted is not shown.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from typing import Any, TypeAlias

from google.protobuf.message import Message as ProtoMessage

from protoflow.codecs.printable import printable
from protoflow.codecs.sensitive import Sensitive, TooManyError, forms_of
from protoflow.errors import ProtoflowError
from protoflow.outcomes import Outcome

__all__ = ["Sensitive", "error_text", "scrub", "text_of", "traceback_text"]

#: A decoded message, or its forms as received and as the handler left it.
Evidence: TypeAlias = ProtoMessage | Sequence[ProtoMessage] | None

_HIDDEN = "***"
#: Shorter values occur in any text by chance; hiding them would reveal more than it hides.
_SHORTEST = 3
#: The number of characters of a text that are redacted quickly, and shown.
_LOOKED_AT = 32_768
_SHOWN = 4096
_WITHHELD = "(not shown: it may quote sensitive fields)"


def text_of(error: BaseException) -> str:
    """Returns the error's text, even if its `__str__` fails. Lone surrogates are replaced, because
    files and brokers refuse them."""
    try:
        text = str(error)
    except Exception as broken:
        return f"(its text cannot be read: {type(broken).__name__})"
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text


def scrub(text: str, evidence: Any, sensitive: Sensitive) -> str:
    """Returns the text without the values of the message's sensitive fields.

    Args:
        text: a text that may contain the message.
        evidence: the decoded message, or several; None hides nothing.
        sensitive: the sensitive fields by type.
    """
    messages = _messages(evidence)
    if not sensitive or not messages or not text:
        return text
    if len(text) > _LOOKED_AT:
        return _WITHHELD
    try:
        forms = forms_of(messages, sensitive)
    except TooManyError:
        return _WITHHELD
    lowered = text.lower()
    found = {form for form in forms if len(form) >= _SHORTEST and form.lower() in lowered}
    # The longest form comes first, because one form may be a part of another.
    for form in sorted(found, key=len, reverse=True):
        text = re.sub(re.escape(form), _HIDDEN, text, flags=re.IGNORECASE)
    return text


def error_text(error: BaseException, evidence: Any, sensitive: Sensitive) -> str:
    """Returns the error's text on one line, redacted."""
    if _is_opaque(error, evidence, sensitive):
        return _WITHHELD
    return printable(scrub(text_of(error), evidence, sensitive), _SHOWN)


def traceback_text(error: BaseException, evidence: Any, sensitive: Sensitive) -> str:
    """Returns the error's traceback, redacted and indented, so that no line looks like a log
    record."""
    if _is_opaque(error, evidence, sensitive):
        return f"  {_WITHHELD}"
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as broken:  # reading an error's attributes may raise anything
        text = f"(the traceback cannot be read: {type(broken).__name__})"
    scrubbed = scrub(text.encode("utf-8", "backslashreplace").decode(), evidence, sensitive)
    return "\n".join(f"  {printable(line, _SHOWN)}" for line in scrubbed.splitlines())


def _is_opaque(error: BaseException, evidence: Any, sensitive: Sensitive) -> bool:
    """Whether a text may contain unknown data. Protoflow's own errors contain none."""
    if not sensitive or _messages(evidence):
        return False
    return not isinstance(error, ProtoflowError | Outcome)


def _messages(evidence: Any) -> Sequence[ProtoMessage]:
    if isinstance(evidence, ProtoMessage):
        return (evidence,)
    if isinstance(evidence, Sequence):
        return [item for item in evidence if isinstance(item, ProtoMessage)]
    return ()
