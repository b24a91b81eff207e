"""Reports, Prometheus metrics and OpenTelemetry metrics of a running service.

These modules read the counters of the runtime (`protoflow.stats`), at no cost per message.
"""
