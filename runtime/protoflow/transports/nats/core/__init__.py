"""Core NATS: at most once."""
