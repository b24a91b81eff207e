"""Keeps the values of sensitive fields out of texts, and texts out of trouble.

The text of an error may quote the message, in any form, and it may hold whatever a stranger
wrote. Where a message has sensitive fields such a text is shown only scrubbed; what cannot be
scrubbed is not shown.
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

#: A decoded message, or several that may be quoted: as it came, and as a handler left it.
Evidence: TypeAlias = ProtoMessage | Sequence[ProtoMessage] | None

_HIDDEN = "***"
#: Shorter forms occur in any text by chance; hiding them would show more than it hides.
_SHORTEST = 3
#: Characters of a text that can be scrubbed in no time, and that are shown of one.
_LOOKED_AT = 32_768
_SHOWN = 4096
_WITHHELD = "(not shown: it may quote sensitive fields)"


def text_of(error: BaseException) -> str:
    """The error's own text, whatever its `__str__` does, and without lone surrogates, which
    neither a file nor a broker takes."""
    try:
        text = str(error)
    except Exception as broken:
        return f"(its text cannot be read: {type(broken).__name__})"
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text


def scrub(text: str, evidence: Any, sensitive: Sensitive) -> str:
    """The text without the values that the sensitive fields of the message have.

    Args:
        text: anything that may quote the message.
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
    # The longest first: a form may be a part of another.
    for form in sorted(found, key=len, reverse=True):
        text = re.sub(re.escape(form), _HIDDEN, text, flags=re.IGNORECASE)
    return text


def error_text(error: BaseException, evidence: Any, sensitive: Sensitive) -> str:
    """The error's own text on one line, scrubbed."""
    if _is_opaque(error, evidence, sensitive):
        return _WITHHELD
    return printable(scrub(text_of(error), evidence, sensitive), _SHOWN)


def traceback_text(error: BaseException, evidence: Any, sensitive: Sensitive) -> str:
    """The error's traceback, scrubbed and indented, so that no line of it can be taken for a
    record of the log."""
    if _is_opaque(error, evidence, sensitive):
        return f"  {_WITHHELD}"
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as broken:  # an error may do anything when it is looked at
        text = f"(no traceback can be had: {type(broken).__name__})"
    scrubbed = scrub(text.encode("utf-8", "backslashreplace").decode(), evidence, sensitive)
    return "\n".join(f"  {printable(line, _SHOWN)}" for line in scrubbed.splitlines())


def _is_opaque(error: BaseException, evidence: Any, sensitive: Sensitive) -> bool:
    """Whether nobody knows what the text may quote. Our own errors quote nothing."""
    if not sensitive or _messages(evidence):
        return False
    return not isinstance(error, ProtoflowError | Outcome)


def _messages(evidence: Any) -> Sequence[ProtoMessage]:
    if isinstance(evidence, ProtoMessage):
        return (evidence,)
    if isinstance(evidence, Sequence):
        return [item for item in evidence if isinstance(item, ProtoMessage)]
    return ()
