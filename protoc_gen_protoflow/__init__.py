"""Generates typed event handlers and producers from annotated .proto files."""

from __future__ import annotations

from protoflow import __version__ as __version__

__all__ = ["__version__"]
