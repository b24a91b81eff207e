"""HTTP pages of a service: its handlers, dead letters, health and metrics."""
