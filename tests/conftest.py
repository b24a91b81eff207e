"""Tests at once: `make test` runs several workers, which share the brokers.

Cases of the acceptance suite go to whoever is free; any other file stays with one worker,
because its fixtures are made once.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
#: Directories whose files share what is made once.
TOGETHER = {"packaging", "plugin", "realworld"}


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        directory, *_ = parts = item.path.relative_to(HERE).parts
        if directory != "acceptance":
            group = directory if directory in TOGETHER else "/".join(parts)
            item.add_marker(pytest.mark.xdist_group(group))
