"""Tests at once: `make test` runs several workers, which share the brokers."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import hypothesis
import pytest

hypothesis.settings.register_profile("protoflow", deadline=None)  # machines may be busy
hypothesis.settings.load_profile("protoflow")


@cache
def broker_urls() -> dict[str, str]:
    """The environment variable and URL of every broker that can be had."""
    from tests import brokers

    urls: dict[str, str] = {}
    brokers.prepare(brokers.KINDS)
    for name in brokers.KINDS:
        if url := brokers.url_of(name):
            urls[brokers.kind_variable(name)] = url
    return urls


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # Any: a type of pytest-xdist
    """In the controller, for each worker."""
    node.workerinput["broker_urls"] = broker_urls()


def pytest_configure(config: pytest.Config) -> None:
    os.environ.update(getattr(config, "workerinput", {}).get("broker_urls", {}))
