"""Parts that transports are built of."""
