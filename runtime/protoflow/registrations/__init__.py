"""What is registered, and the plan that follows from it and the config."""
