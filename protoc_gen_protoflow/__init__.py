"""protoc-gen-protoflow: annotated .proto files to typed event handlers and producers."""
