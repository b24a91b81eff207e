"""Converts messages to bytes and headers, and back."""
