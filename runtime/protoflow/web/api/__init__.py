"""The functions of the routes, by subject. Each takes its view of a service, and a request."""
