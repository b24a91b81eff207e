"""uvloop: the same service on a faster event loop."""

from __future__ import annotations

import logging

import uvloop
from billing import Billing, config
from protoflow import Service

service = Service(config())
service.register(Billing())

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    uvloop.run(service.run())
