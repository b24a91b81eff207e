"""protoc-gen-protoflow: annotated .proto files to typed event handlers and producers."""

from __future__ import annotations

from protoflow import __version__ as __version__

__all__ = ["__version__"]
