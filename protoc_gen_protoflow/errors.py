"""The error of the plugin's users."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user, reported without a traceback."""
