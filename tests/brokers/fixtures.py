"""Fixtures for tests of one broker: the server that all tests share, and one of a test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.brokers import skip_or_fail, start_own, url_or_skip
from tests.brokers.base import BrokerUnavailable, RunningBroker


def shared_url(name: str) -> Callable[[], str]:
    """Returns a fixture: the URL of the running broker; without one the test is skipped."""

    @pytest.fixture(scope="session", name="url")
    def url() -> str:
        return url_or_skip(name)

    return url


def own_broker(name: str) -> Callable[[], Iterator[RunningBroker]]:
    """Returns a fixture: a broker of the test alone, which the test may stop."""

    @pytest.fixture(name="own")
    def own() -> Iterator[RunningBroker]:
        try:
            with start_own(name) as broker:
                yield broker
        except BrokerUnavailable as error:
            skip_or_fail(name, error)

    return own
