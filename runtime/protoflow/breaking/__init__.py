"""The effects of a contract change on unfinished messages, and the safe rollout."""
