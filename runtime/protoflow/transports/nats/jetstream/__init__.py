"""JetStream: at least once, with streams."""
