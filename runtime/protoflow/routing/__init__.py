"""Several transports in one service: which topic and which group is on which transport."""
