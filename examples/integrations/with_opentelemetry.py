"""OpenTelemetry without code: run it with `opentelemetry-instrument python with_opentelemetry.py`.

Traces need nothing more; `observe` exports the metrics of the service.
"""

from __future__ import annotations

import asyncio
import logging

from billing import Billing, config
from protoflow import Service
from protoflow.observability.opentelemetry import observe

logging.getLogger().setLevel(logging.INFO)  # its own handler exports the records
service = Service(config())
service.register(Billing())
observe(service.reporter)

if __name__ == "__main__":
    asyncio.run(service.run())
