"""Comments of the .proto as summaries and descriptions."""

from __future__ import annotations

from collections.abc import Mapping

#: Comments by the full names of the objects that they describe.
Comments = Mapping[str, str]

_LONGEST_SUMMARY = 120


def described(comment: str, *, summarized: bool = True) -> dict[str, str]:
    """Returns `summary` and `description` of a comment; an empty comment has neither.

    Args:
        comment: the text; empty lines separate its paragraphs.
        summarized: whether the object has a `summary` besides its `description`.
    """
    if not comment:
        return {}
    first, _, rest = comment.partition("\n\n")
    first = " ".join(first.split())
    if not summarized or len(first) > _LONGEST_SUMMARY:
        return {"description": comment}
    return {"summary": first, **({"description": comment} if rest else {})}
