"""Reports, Prometheus metrics and OpenTelemetry metrics of a running service.

Everything here reads the counters that the runtime keeps (`protoflow.stats`); nothing here costs
anything per message.
"""
