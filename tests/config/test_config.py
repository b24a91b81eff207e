"""Settings: layers, mistakes all at once, secrets, and where each value came from."""

from __future__ import annotations

import contextlib
import json
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow.config import Config
from protoflow.contract.spec import (
    DeadLetterPolicy,
    DeliveryPolicy,
    Encoding,
    OnExhausted,
    Ordering,
    RetryPolicy,
)
from protoflow.errors import ConfigError
from protoflow.transport import TopologyMode


def config(environ: dict[str, str] | None = None, **settings: Any) -> Config:
    return Config(environ=environ or {}, **settings)


def test_without_anything_the_built_in_values_hold() -> None:
    built_in = config()
    assert built_in.url.scheme == "memory"
    assert built_in.max_in_flight_bytes == 64 * 1024 * 1024
    assert (built_in.retry_in_place, built_in.lease, built_in.shutdown_timeout) == (5.0, 30.0, 30.0)
    assert {origin for _, origin in built_in.describe().values()} == {"built in"}


def test_arguments_go_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "protoflow.toml"
    file.write_text('namespace = "file"\nlease = "10s"\nsource = "/file"\n')
    environ = {
        "PROTOFLOW_CONFIG": str(file),
        "PROTOFLOW_NAMESPACE": "env",
        "PROTOFLOW_LEASE": "20s",
    }
    got = config(environ, namespace="argument")
    assert (got.namespace, got.lease, got.source) == ("argument", 20.0, "/file")
    origins = {name: origin for name, (_, origin) in got.describe().items()}
    assert origins["namespace"] == "argument"
    assert origins["lease"] == "environment"
    assert origins["source"] == "file"
    assert origins["max_hold"] == "built in"


def test_tables_are_merged_leaf_by_leaf_over_the_layers(tmp_path: Path) -> None:
    file = tmp_path / "protoflow.toml"
    file.write_text(
        """
        [variables]
        region = "eu"
        team = "blue"

        [defaults]
        concurrency = 4
        [defaults.retry]
        max_attempts = 7
        initial_backoff = "2s"

        [handlers."shop.v1.Orders.Bill"]
        ordering = "per_key"
        timeout = "10s"
        [handlers."shop.v1.Orders.Bill".retry]
        max_attempts = 2
        """
    )
    environ = {
        "PROTOFLOW_VARIABLES__REGION": "us",
        "PROTOFLOW_DEFAULTS__RETRY__MAX_ATTEMPTS": "9",
        "PROTOFLOW_HANDLERS": json.dumps({"shop.v1.Orders.Bill": {"retry": {"jitter": 0.1}}}),
    }
    got = config(environ, file=file, defaults={"timeout": timedelta(seconds=3)})
    assert got.variables == {"region": "us", "team": "blue"}
    assert got.defaults == DeliveryPolicy(
        concurrency=4, timeout=3.0, retry=RetryPolicy(max_attempts=9, initial_backoff=2.0)
    )
    assert got.handlers["shop.v1.Orders.Bill"] == DeliveryPolicy(
        ordering=Ordering.PER_KEY, timeout=10.0, retry=RetryPolicy(max_attempts=2, jitter=0.1)
    )


def test_every_kind_of_value_can_come_as_text() -> None:
    got = config(
        {
            "PROTOFLOW_TRANSPORT": "kafka://a:9092,b",
            "PROTOFLOW_ENCODING": "json",
            "PROTOFLOW_STRUCTURED": "yes",
            "PROTOFLOW_TOPOLOGY": "verify",
            "PROTOFLOW_RETRY_LADDER": "1s, 1m, 1h",
            "PROTOFLOW_MAX_IN_FLIGHT": "7",
            "PROTOFLOW_RETRY_IN_PLACE": "250ms",
            "PROTOFLOW_HANDLE_SIGNALS": "off",
            "PROTOFLOW_TYPE_NAMES": '{"*models.Order": "shop.v1.Order"}',
        }
    )
    assert got.url.hosts == (("a", 9092), ("b", None))
    assert got.encoding is Encoding.JSON
    assert got.structured is True
    assert got.topology is TopologyMode.VERIFY
    assert got.retry_ladder == (1.0, 60.0, 3600.0)
    assert got.max_in_flight == 7
    assert got.retry_in_place == 0.25
    assert got.handle_signals is False
    assert got.type_names == {"*models.Order": "shop.v1.Order"}


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        config(
            {"PROTOFLOW_LEASES": "3", "PROTOFLOW_MAX_HOLD": "soon"},
            transport="nonsense",
            namespace="two words",
            variables={"region": "e u"},
            retry_ladder=(5, 1),
            max_in_flight=-1,
            on_lost_position="guess",
            defaults={"retry": {"max_attempts": 0}, "speed": 9},
            handlers={"a.b.C": {"retry": {"jitter": 2.0}, "ordering": "sideways"}},
        )
    text = str(caught.value)
    for words in (
        "PROTOFLOW_LEASES (environment): no such setting",
        "max_hold (environment)",
        "transport: not a URL",
        "namespace: 'two words'",
        "variables.region",
        "retry_ladder: must be positive and ascending",
        "max_in_flight: must not be negative",
        "on_lost_position",
        "defaults: retry.max_attempts is 0; use at least 1",
        "defaults.speed: no such setting",
        "handlers.'a.b.C': retry.jitter is 2.0; use a share from 0 to 1",
        "handlers.'a.b.C'.ordering: must be one of none, per_key, per_partition",
    ):
        assert words in text, text


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lease", 0, "must be positive"),
        ("gc_threshold", -1, "must not be negative"),
        ("stall_after", -1, "must not be negative"),
        ("http_port", 65536, "must be 0 to 65535"),
        ("journal_max_bytes", 1048575, "must be at least 1048576"),
    ],
)
def test_numbers_have_limits(name: str, value: float, words: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: {words}"):
        config({}, **{name: value})


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"concurrency": 0}, "concurrency is 0; use at least 1"),
        ({"timeout": 0}, "timeout is 0.0; use more than 0"),
        ({"retry": {"initial_backoff": -1}}, "initial_backoff is -1.0; use at least 0"),
        ({"retry": {"initial_backoff": 5, "max_backoff": 1}}, "max_backoff is less than"),
        ({"retry": {"backoff_multiplier": 0.5}}, "backoff_multiplier is 0.5; use at least 1"),
        ({"retry": {"max_elapsed": 0}}, "max_elapsed is 0.0; use more than 0"),
    ],
)
def test_policies_are_checked(policy: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(defaults=policy)


def test_a_file_that_is_not_there_or_no_toml_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        config(file=tmp_path / "missing.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("= nothing")
    with pytest.raises(ConfigError, match="not TOML"):
        config(file=broken)


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOFLOW_NAMESPACE", "from-env")
    assert Config().namespace == "from-env"


def test_no_secret_is_shown_by_repr_or_describe() -> None:
    got = config(
        transport="amqp://alice:s3cret@host/vhost?token=hush",
        transport_options={"sasl_password": "s3cret"},
    )
    shown = repr(got) + str(got) + str(got.describe()) + repr(got.url) + str(got.url)
    for secret in ("s3cret", "hush"):
        assert secret not in shown
    assert "amqp://host/vhost" in shown


def test_a_mistake_in_a_url_quotes_no_password() -> None:
    with pytest.raises(ConfigError) as caught:
        config(transport="amqp://alice:s3cret@host:port/")
    assert "s3cret" not in str(caught.value)


def test_describe_names_every_setting() -> None:
    names = {field.name for field in fields(Config)} - {"file", "fallback", "environ"}
    assert set(config().describe()) == names


def test_policies_can_be_given_as_objects() -> None:
    policy = DeliveryPolicy(
        dead_letter=DeadLetterPolicy(topic="{topic}.{group}.lost", on_exhausted=OnExhausted.DROP)
    )
    got = config(defaults=policy, handlers={"a.b.C": policy})
    assert got.defaults == policy
    assert got.handlers == {"a.b.C": policy}


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4))
def test_foreign_variables_of_the_environment_are_left_alone(environ: dict[str, str]) -> None:
    kept = {name: value for name, value in environ.items() if not name.startswith("PROTOFLOW_")}
    assert config(kept).describe() == config().describe()


@given(
    st.dictionaries(
        st.sampled_from(["lease", "max_hold", "retry_in_place", "namespace", "max_in_flight"]),
        st.text(max_size=6),
        max_size=4,
    )
)
def test_any_text_is_a_value_or_a_mistake_never_a_crash(values: dict[str, str]) -> None:
    environ = {f"PROTOFLOW_{name.upper()}": value for name, value in values.items()}
    try:
        config(environ)
    except ConfigError:
        return


def test_what_a_program_falls_back_to_gives_way_to_everything(tmp_path: Path) -> None:
    file = tmp_path / "protoflow.toml"
    file.write_text('source = "/file"\n')
    fallback = {"transport": "sqlite:///queue.db", "source": "/fallback", "lease": "10s"}
    got = config({"PROTOFLOW_LEASE": "20s"}, file=file, fallback=fallback)
    assert (got.url.scheme, got.source, got.lease) == ("sqlite", "/file", 20.0)
    assert [got.origin(name) for name in ("transport", "source", "lease", "namespace")] == [
        "fallback", "file", "environment", "built in",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"transpot \(fallback\).*did you mean transport\?"):
        config(fallback={"transpot": "memory://"})


HANDLER = "shop.v1.Orders.BillOrder"


@pytest.mark.parametrize(
    "name", ["SHOP_V1_ORDERS_BILLORDER", "shop_v1_orders_billorder", "shop.v1.Orders.BillOrder"]
)
def test_a_variable_overrides_the_policy_of_a_handler(name: str, tmp_path: Path) -> None:
    environ = {
        f"PROTOFLOW_HANDLERS__{name}__RETRY__MAX_ATTEMPTS": "2",
        f"PROTOFLOW_HANDLERS__{name}__CONCURRENCY": "3",
    }
    alone = config(environ)
    assert alone.policy_of(HANDLER).concurrency == 3
    assert alone.policy_of(HANDLER).retry.max_attempts == 2
    assert alone.policy_of("shop.v1.Orders.Other") == DeliveryPolicy()
    assert alone.unknown_handlers([HANDLER]) == []
    file = tmp_path / "protoflow.toml"
    file.write_text(f'[handlers."{HANDLER}"]\nconcurrency = 9\ntimeout = "5s"\n')
    both = config(environ, file=file, handlers={HANDLER: {"retry": {"max_attempts": 7}}})
    policy = both.policy_of(HANDLER)
    assert (policy.concurrency, policy.timeout, policy.retry.max_attempts) == (3, 5.0, 7)


def test_a_policy_of_no_handler_names_the_one_that_was_meant() -> None:
    (problem,) = config(handlers={"shop.v1.Orders.BillOrdr": {}}).unknown_handlers([HANDLER])
    assert "did you mean shop.v1.Orders.BillOrder?" in problem


def test_service_links_of_kubernetes_are_no_settings() -> None:
    links = {
        "PROTOFLOW_PORT": "tcp://10.0.0.1:80",
        "PROTOFLOW_SERVICE_HOST": "10.0.0.1",
        "PROTOFLOW_SERVICE_PORT": "80",
        "PROTOFLOW_SERVICE_PORT_HTTP": "80",
        "PROTOFLOW_PORT_80_TCP": "tcp://10.0.0.1:80",
        "PROTOFLOW_PORT_80_TCP_PROTO": "tcp",
        "PROTOFLOW_PORT_80_TCP_PORT": "80",
        "PROTOFLOW_PORT_80_TCP_ADDR": "10.0.0.1",
        "PROTOFLOW_WEB_SERVICE_HOST": "10.0.0.2",
        "PROTOFLOW_WEB_PORT_9090_UDP_ADDR": "10.0.0.2",
        # A service called protoflow-http has a variable by the name of a setting.
        "PROTOFLOW_HTTP_PORT": "tcp://10.0.0.3:80",
    }
    assert config(links).http_port == 0
    assert config({**links, "PROTOFLOW_HTTP_PORT": "8080"}).http_port == 8080
    with pytest.raises(ConfigError, match="PROTOFLOW_PORTS"):
        config({"PROTOFLOW_PORTS": "80"})


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"PROTOFLOW_TRANPORT": "memory://"}, "did you mean transport?"),
        ({"PROTOFLOW_DEFAULTS__CONCURENCY": "3"}, "did you mean concurrency?"),
        ({"PROTOFLOW_XYZ": "3"}, "known are"),
        ({"PROTOFLOW_EXCHANGE": "x"}, "was moved to transport_options: exchange on RabbitMQ"),
    ],
)
def test_a_name_that_is_none_brings_the_one_that_was_meant(
    environ: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config(environ)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lease": float("nan")}, "lease (argument): must be a finite number"),
        ({"max_hold": float("inf")}, "max_hold (argument): must be a finite number"),
        ({"lease": "9" * 400}, "must be a finite number"),
        ({"retry_ladder": (1.0, float("nan"))}, "must be a finite number"),
        ({"defaults": {"timeout": float("inf")}}, "must be a finite number"),
        ({"http_token": "x\n"}, "http_token: has blanks or line breaks"),
        ({"http_proxies": ("nginx",)}, "http_proxies: 'nginx' is not an address or a network"),
        ({"source": "a\nb"}, "source: has control characters"),
        ({"client_name": "\x00"}, "client_name: has control characters"),
    ],
)
def test_what_can_only_fail_later_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**settings)
    assert words in str(caught.value)


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "url",
    [
        f"kafka://user:1234/{SECRET}@host:9092",
        f"amqp://user:5672/{SECRET}@host/",
        f"kafka://user:1234?{SECRET}@host:9092",
        f"kafka://user:{SECRET}?x@host:9092",
        f"kafka://u:{SECRET}@a:1,u2:{SECRET}@b:2",
        f"nats://{SECRET}\x00@",
        f"kafka://u:{SECRET}@host:notaport",
        f"kafka://u:{SECRET}@[::1",
        f"kafka://u:{SECRET}@::1:9092",
        f"kafka://u:{SECRET}@a b:9092",
        f"kafka://u:{SECRET}@:9092",
        f"kafka://u:{SECRET}@host:٩٩",
        f"sqlite:///a%00{SECRET}",
    ],
)
def test_a_url_that_can_be_read_in_two_ways_is_refused_without_its_secret(url: str) -> None:
    if url == f"nats://{SECRET}\x00@":  # no host: the transport's own check
        assert SECRET not in str(config(transport=url).url)
        return
    with pytest.raises(ConfigError) as caught:
        config(transport=url)
    assert SECRET not in str(caught.value)


def test_urls_that_are_plain_are_read_as_before() -> None:
    for url, hosts, path in (
        ("kafka://u:p%2Fw@a:1,b", (("a", 1), ("b", None)), ""),
        ("kafka://[::1]:9092,[fe80::1]", (("::1", 9092), ("fe80::1", None)), ""),
        ("sqlite:///home/me@work/q.db", (), "/home/me@work/q.db"),
        ("amqp://u:p@w@host/v", (("host", None),), "/v"),
        ("nats://h:4222?name=a%40b", (("h", 4222),), ""),
    ):
        read = config(transport=url).url
        assert (read.hosts, read.path) == (hosts, path)


# Any code point, lone surrogates included.
@given(st.text(st.characters(codec=None) | st.sampled_from(":/@?#[],%&="), max_size=40))
def test_any_text_is_a_url_or_a_mistake(text: str) -> None:
    for url in (text, f"kafka://{text}", f"sqlite:///{text}"):
        try:
            read = config(transport=url).url
        except ConfigError:
            continue
        assert read.path.isprintable()
        str(read)


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=5))
def test_any_environment_is_read_or_refused(variables: dict[str, str]) -> None:
    environ = {f"PROTOFLOW_{name.upper()}": text for name, text in variables.items()}
    with contextlib.suppress(ConfigError):
        config(environ)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = [" + b"[" * 5000, b"a"])
def test_a_file_that_is_no_toml_is_a_mistake(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "protoflow.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="not TOML"):
        config(file=file)
    with pytest.raises(ConfigError, match="not a JSON object"):
        config({"PROTOFLOW_VARIABLES": '{"a":' * 5000})
