"""The dashboard: one page for browsers, and its files."""
