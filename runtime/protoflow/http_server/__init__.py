"""The parts of an HTTP server that the pages and the HTTP transport share."""
