"""`protoflow init`: a project that runs."""
