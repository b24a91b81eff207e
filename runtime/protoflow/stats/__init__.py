"""Counters of handlers, their latencies, dead letters by topic."""
