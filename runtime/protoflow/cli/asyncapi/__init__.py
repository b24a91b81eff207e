"""`protoflow asyncapi`."""
