"""Explanations of error codes, read only when someone asks for one."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a code means; the texts are Markdown.

    Attributes:
        code: the code, as error texts show it.
        title: what happened.
        cause: why.
        fix: what to do.
    """

    code: str
    title: str
    cause: str
    fix: str


def load() -> dict[str, Explanation]:
    """Returns the explanation of each code, in the order of the codes."""
    text = resources.files("protoflow.cli").joinpath("explanations.toml").read_text("utf-8")
    return {code: Explanation(code=code, **texts) for code, texts in tomllib.loads(text).items()}
