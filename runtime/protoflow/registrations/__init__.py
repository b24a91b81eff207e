"""The registrations of a service, and the plan made from them and the config."""
