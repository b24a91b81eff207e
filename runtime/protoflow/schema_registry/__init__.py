"""Registers the schemas of messages, and finds the schemas of received messages.

The registry speaks the HTTP interface of Confluent's Schema Registry, which Apicurio, Karapace and
Redpanda have, too. Payloads carry Confluent's frames; see `protoflow.codecs.framing`.
"""
