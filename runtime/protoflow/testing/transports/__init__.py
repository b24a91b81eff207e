"""The acceptance suite for transports; it proves every capability that a transport claims.

    # tests/test_transport.py
    import pytest

    from protoflow.testing.transports import TransportTarget
    from protoflow.testing.transports.cases import *


    @pytest.fixture
    def target(tmp_path):
        return TransportTarget(url=f"directory://{tmp_path}")

The suite needs the extra `testing`. It skips a case only if the transport does not claim the
capability that the case proves; the reason is `capability: <name>`.
"""

import pytest

pytest.register_assert_rewrite("protoflow.testing.transports.cases")

from protoflow.testing.transports.harness import (  # noqa: E402  assertions are rewritten first
    Member,
    TransportHarness,
    needs,
    numbers,
    payloads,
)
from protoflow.testing.transports.target import TransportTarget  # noqa: E402

__all__ = ["Member", "TransportHarness", "TransportTarget", "needs", "numbers", "payloads"]
