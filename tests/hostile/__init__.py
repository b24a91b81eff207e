"""Hostile messages by raw clients, among good neighbours.

`table` holds the messages as data, `writers` has one raw client for each broker, `judge` says
what must be true afterwards.
"""
