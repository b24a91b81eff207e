"""`protoflow generate`: protoc, the plugin, and the imports of what they write."""
