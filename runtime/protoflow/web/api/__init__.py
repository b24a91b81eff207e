"""The functions of the routes, by subject. Each takes what it sees of a service and a request."""
