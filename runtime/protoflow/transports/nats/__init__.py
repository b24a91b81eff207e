"""NATS: core NATS, JetStream, and their common connection, options and names."""
