"""`protoflow why`: what became of one message, as far as anybody knows."""
