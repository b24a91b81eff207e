"""The annotations, as generated Python."""
