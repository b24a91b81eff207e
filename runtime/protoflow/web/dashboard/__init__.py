"""The dashboard: one page for browsers, and the files that it is made of."""
