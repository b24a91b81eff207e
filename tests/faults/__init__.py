"""Tests that hurt brokers and connections, and the tools to do so."""
