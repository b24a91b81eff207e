"""How `run` shows a log record as text."""

from __future__ import annotations

import logging

from protoflow.observability.logs import TextFormatter


def line(text: str, **fields: object) -> str:
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": text, **fields})
    return TextFormatter().format(record).partition(" ")[2]


def test_fields_follow_the_first_line() -> None:
    assert line("it failed\n  trace", topic="orders") == "INFO n: it failed topic=orders\n  trace"


def test_what_the_text_says_is_no_field_again() -> None:
    assert line("order A-27 failed", id="A-27", topic="t") == "INFO n: order A-27 failed topic=t"


def test_a_short_value_is_always_shown() -> None:
    assert line("again in 1 s", attempt=1) == "INFO n: again in 1 s attempt=1"


def test_a_field_cannot_break_the_line() -> None:
    assert "\n" not in line("text", value="two\nlines")
