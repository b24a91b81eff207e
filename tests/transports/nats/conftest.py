"""A NATS server that runs, and one that a test may stop."""

from __future__ import annotations

from tests.brokers.fixtures import own_broker, shared_url

url = shared_url("nats")
own = own_broker("nats")
