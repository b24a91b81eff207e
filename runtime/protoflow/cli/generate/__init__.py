"""`protoflow generate`: runs protoc and the plugin, and fixes the imports of their output."""
