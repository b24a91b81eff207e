"""Where templates and annotations lie: beside this package when installed, else in the checkout."""

from __future__ import annotations

import os.path

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def templates() -> str:
    """The directory of the templates."""
    return _directory("templates", "templates")


def include() -> str:
    """The directory to give to `protoc -I`, in which `protoflow/v1/options.proto` lies."""
    return _directory("include", "proto")


def _directory(packaged: str, checkout: str) -> str:
    installed = os.path.join(_PACKAGE, packaged)
    if os.path.isdir(installed):
        return installed
    return os.path.join(os.path.dirname(_PACKAGE), checkout)
