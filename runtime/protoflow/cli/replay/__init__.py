"""`protoflow replay`: old messages through one handler, or two versions of it side by side."""
