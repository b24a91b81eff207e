"""The contract as data: specs, policies, topic names, rules."""
