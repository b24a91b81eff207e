"""Nothing that is received can hurt a service, its neighbours included."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.acceptance.harness import Harness
from tests.hostile.judge import Judge
from tests.hostile.table import Hostile, common
from tests.hostile.writers import Writer

pytestmark = pytest.mark.timeout(150)

#: Parts of the table, so that a failure is near its cause.
PARTS = 3


def _rows(writer: Writer) -> list[Hostile]:
    return [*writer.rows(), *common()]


@pytest.mark.parametrize("part", range(PARTS))
async def test_hostile_messages_hurt_nobody(harness: Harness, writer: Writer, part: int) -> None:
    rows = _rows(writer)
    size = -(-len(rows) // PARTS)
    await Judge(harness, writer, rows[part * size : (part + 1) * size]).trial(within=30)


async def test_the_table_is_wide(writer: Writer) -> None:
    rows = _rows(writer)
    pairs = Counter((row.field, row.kind) for row in rows)
    twice = [pair for pair, count in pairs.items() if count > 1]
    assert not twice, "a row stands there twice"
    assert len(rows) >= 150
    assert len({row.field for row in rows}) >= 20
