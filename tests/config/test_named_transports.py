"""Further transports in the settings: merged, and every mistake named with its setting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from protoflow import Config
from protoflow.config.named_transports import NamedTransport
from protoflow.config.url import TransportURL
from protoflow.errors import ConfigError

TOML = """
transport = "kafka://localhost"

[transports.audit]
url = "jetstream://user:s3cr3t@nats"
shards = 2

[topics."orders.audited"]
transport = "audit"
[groups.billing]
transport = "audit"
[handlers."shop.v1.Orders.Bill"]
transport = "default"
concurrency = 3
"""


def config(environ: dict[str, str] | None = None, **settings: Any) -> Config:
    return Config(environ=environ or {}, **settings)


def mistakes(**settings: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        config(**{"transport": "kafka://a", **settings})
    return caught.value.problems


def test_a_file_names_transports_and_what_uses_them(tmp_path: Path) -> None:
    file = tmp_path / "protoflow.toml"
    file.write_text(TOML)
    got = config(file=file)
    audit = got.transport_named("audit")
    assert (audit.url.safe, dict(audit.options)) == ("jetstream://nats", {"shards": 2})
    assert got.transport_named("default").url.safe == "kafka://localhost"
    assert got.routes["topics"]["orders.audited"].transport == "audit"
    assert got.routes["groups"]["billing"].transport == "audit"
    assert got.handler_transports == {"shop.v1.Orders.Bill": "default"}
    assert got.policy_of("shop.v1.Orders.Bill").concurrency == 3
    assert "s3cr3t" not in f"{got!r}{got.describe()}"
    assert got.describe()["transports"] == ("{'audit': jetstream://nats}", "file")


def test_the_environment_completes_and_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "protoflow.toml"
    file.write_text(TOML)
    got = config(
        {
            "PROTOFLOW_TRANSPORTS__AUDIT__URL": "jetstream://other",
            "PROTOFLOW_TOPICS__orders.placed__TRANSPORT": "audit",
            "PROTOFLOW_HANDLERS__SHOP_V1_ORDERS_BILL__TRANSPORT": "audit",
        },
        file=file,
    )
    audit = got.transport_named("audit")
    assert (audit.url.safe, dict(audit.options)) == ("jetstream://other", {"shards": 2})
    assert set(got.topics) == {"orders.audited", "orders.placed"}
    assert got.handler_transports == {"shop.v1.Orders.Bill": "audit"}


def test_programs_give_a_url_a_table_or_a_record() -> None:
    url = TransportURL.parse("nats://c")
    got = config(
        transports={
            "a": "nats://a", "b": {"url": "nats://b", "x": 1},
            "c": NamedTransport(url=url, options={"y": 2}),
        },
        topics={name: {"transport": name} for name in "abc"},
    )  # fmt: skip
    assert [url.safe for url in got.urls[1:]] == ["nats://a", "nats://b", "nats://c"]
    assert [dict(got.transport_named(name).options) for name in "abc"] == [{}, {"x": 1}, {"y": 2}]


def test_an_unknown_transport_is_named_with_its_setting() -> None:
    used = {"transports": {"audit": "nats://b"}, "topics": {"t": {"transport": "audit"}}}
    assert mistakes(**used, groups={"g": {"transport": "audti"}}) == (
        "groups.'g'.transport: no transport 'audti'; did you mean audit?",
    )
    assert mistakes(handlers={"a.B.C": {"transport": "sqs"}}) == (
        "handlers.'a.B.C'.transport: no transport 'sqs'; there are default",
    )


def test_an_unused_a_repeated_and_a_nameless_transport_are_refused() -> None:
    (unused,) = mistakes(transports={"audit": "nats://b"})
    assert unused.startswith("transports.audit: no topic, group or handler uses it; set")
    topics = {"t": {"transport": "audit"}}
    assert mistakes(transports={"audit": "kafka://a"}, topics=topics) == (
        "transports.audit: the same URL as transport; use one of the two",
    )
    assert mistakes(transports={"audit": {"url": "kafka://a", "linger": 1}}, topics={}) == (
        unused,
    ), "other options make another transport"
    assert mistakes(transports={"default": "nats://b"}) == (
        "transports.default: this name stands for the setting `transport`; set that",
    )
    (missing, _unknown) = mistakes(transports={"audit": {"shards": 1}}, topics=topics)
    assert missing == "transports.audit.url: is missing"
    (name, _unused) = mistakes(transports={"Audit Log": "nats://b"})
    assert name.startswith("transports.Audit Log: a name has lower-case letters")


def test_settings_that_are_replaced_keep_the_transports_of_handlers(tmp_path: Path) -> None:
    file = tmp_path / "protoflow.toml"
    file.write_text(TOML)
    got = replace(config(file=file), namespace="other", file=None, environ={})
    assert got.handler_transports == {"shop.v1.Orders.Bill": "default"}
    assert got.transports == config(file=file).transports


def test_tables_of_another_shape_are_refused() -> None:
    assert mistakes(topics={"t": "audit"}) == (
        "topics (argument): topics.'t': must be a table with transport, source, schema_registry",
    )
    assert mistakes(topics={"t": {"transprot": "audit"}}) == (
        "topics.'t'.transprot: no such setting; did you mean transport?",
    )
    assert mistakes(transports={"audit": 1}) == (
        "transports (argument): transports.audit: must be a table with url, or a URL",
    )
    assert mistakes(transports={"audit": "audit"}, topics={})[0].startswith(
        "transports.audit.url: not a URL"
    )
