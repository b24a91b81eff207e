"""Looking at a running service: reports, Prometheus, OpenTelemetry metrics.

Everything here reads the counters that the runtime keeps (`protoflow.stats`); nothing here costs
anything per message.
"""
