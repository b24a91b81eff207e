"""The directories of templates and annotations, in the installed package or the checkout."""

from __future__ import annotations

import os.path

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def templates() -> str:
    """Returns the directory of the templates."""
    return _directory("templates", "templates")


def include() -> str:
    """Returns the directory for `protoc -I`, which contains `protoflow/v1/options.proto`."""
    return _directory("include", "proto")


def _directory(packaged: str, checkout: str) -> str:
    installed = os.path.join(_PACKAGE, packaged)
    if os.path.isdir(installed):
        return installed
    return os.path.join(os.path.dirname(_PACKAGE), checkout)
