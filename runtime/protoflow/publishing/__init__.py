"""Outputs and events become messages that the broker confirms."""
