"""Comments of the .proto as summaries and descriptions."""

from __future__ import annotations

from collections.abc import Mapping

#: Comments by the full name of what they describe.
Comments = Mapping[str, str]

_LONGEST_SUMMARY = 120


def described(comment: str, *, summarized: bool = True) -> dict[str, str]:
    """`summary` and `description` of a comment; an empty one has neither.

    Args:
        comment: the text, whose paragraphs are parted by empty lines.
        summarized: the object has a `summary` beside its `description`.
    """
    if not comment:
        return {}
    first, _, rest = comment.partition("\n\n")
    first = " ".join(first.split())
    if not summarized or len(first) > _LONGEST_SUMMARY:
        return {"description": comment}
    return {"summary": first, **({"description": comment} if rest else {})}
