"""A transport for Protoflow, `directory:///path`: topics as directories, messages as files."""
