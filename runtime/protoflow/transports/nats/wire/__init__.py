"""The NATS protocol: servers, connections, headers."""
