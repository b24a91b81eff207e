"""What a change of a contract does to messages that are under way, and how to roll it out."""
