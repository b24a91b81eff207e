"""The acceptance suite for transports: every capability that a transport claims is proved.

    # tests/test_transport.py
    import pytest

    from protoflow.testing.transports import TransportTarget
    from protoflow.testing.transports.cases import *


    @pytest.fixture
    def target(tmp_path):
        return TransportTarget(url=f"directory://{tmp_path}")

Needs the extra `testing`. A case is skipped only if the transport does not claim the capability
that it is about; the reason is `capability: <name>`.
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
