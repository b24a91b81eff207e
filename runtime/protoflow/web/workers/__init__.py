"""One HTTP API for several workers, which a parent asks over Unix sockets."""
