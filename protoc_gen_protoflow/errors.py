"""The error for users of the plugin."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user, reported without a traceback; each line ends with its code."""
