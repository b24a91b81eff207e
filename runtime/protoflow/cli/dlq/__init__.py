"""`protoflow dlq`: dead letters, without running a service."""
