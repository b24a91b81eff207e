"""One HTTP API for several workers: a parent asks them over Unix sockets and joins the answers."""
