"""The contract as data: specs, policies, names of topics, rules."""
