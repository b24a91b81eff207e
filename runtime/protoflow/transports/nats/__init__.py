"""NATS: core NATS, JetStream, and the connection, options and names that they share."""
