"""JSON logs of the standard library, also for the records of the runtime."""

from __future__ import annotations

import asyncio
import logging

from billing import Billing, config
from protoflow import Service
from protoflow.observability.logs import JSONFormatter

handler = logging.StreamHandler()
handler.setFormatter(JSONFormatter())
logging.basicConfig(level=logging.INFO, handlers=[handler])

service = Service(config())
service.register(Billing())

if __name__ == "__main__":
    asyncio.run(service.run())
