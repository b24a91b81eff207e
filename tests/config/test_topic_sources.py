"""The settings of topics that are consumed from places of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from protoflow import Config
from protoflow.config.named_transports import RouteSettings
from protoflow.contract.topic_source import TopicSource
from protoflow.errors import ConfigError
from protoflow.routing.routes import Routes

TOML = """
transport = "kafka://a"
namespace = "shop"
[variables]
region = "eu"
[transports.audit]
url = "nats://b"
[topics."orders.{region}".source]
name = "Legacy Orders"
type = "shop.v1.OrderPlaced"
[topics.audited]
transport = "audit"
source = "AUDIT"
"""


def test_a_file_names_places_of_each_transport(tmp_path: Path) -> None:
    file = tmp_path / "protoflow.toml"
    file.write_text(TOML)
    routes = Routes(Config(file=file, environ={}))
    sources = routes.sources("default")
    assert sources.of("shop..orders.eu") == TopicSource(
        name="Legacy Orders", type="shop.v1.OrderPlaced"
    )
    assert sources.place("shop..audited") == ""
    assert routes.sources("audit").place("shop..audited") == "AUDIT"
    assert sources.place("shop..orders.eu..billing..dead") == ""
    assert sources.consumer("shop..orders.eu", "billing") == "billing"


def test_the_environment_names_places_and_keeps_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "protoflow.toml"
    file.write_text(TOML)
    variables = {
        "PROTOFLOW_TOPICS__AUDITED__SOURCE__NAME": "NEWER",
        "PROTOFLOW_TOPICS__AUDITED__SOURCE__CONSUMER": "billing",
    }
    got = Config(file=file, environ=variables)
    source = TopicSource(name="NEWER", consumer="billing")
    assert got.topics["audited"] == RouteSettings(transport="audit", source=source)
    assert str(source) == "NEWER (consumer billing)"
    assert Routes(got).sources("audit").consumer("shop..audited", "g") == "billing"


@pytest.mark.parametrize(
    ("variable", "source"),
    [
        ("NAME", TopicSource(name="x", consumer="old", type="shop.v1.OrderPlaced")),
        ("CONSUMER", TopicSource(name="AUDIT", consumer="x", type="shop.v1.OrderPlaced")),
    ],
)
def test_one_value_of_the_environment_keeps_the_others_of_the_file(
    tmp_path: Path, variable: str, source: TopicSource
) -> None:
    file = tmp_path / "protoflow.toml"
    file.write_text(
        'transport = "kafka://a"\n[topics.audited.source]\n'
        'name = "AUDIT"\nconsumer = "old"\ntype = "shop.v1.OrderPlaced"\n'
    )
    environ = {f"PROTOFLOW_TOPICS__AUDITED__SOURCE__{variable}": "x"}
    assert Config(file=file, environ=environ).routes["topics"]["audited"].source == source


def test_without_sources_nothing_is_looked_up() -> None:
    sources = Routes(Config(environ={}, transport="kafka://a")).sources("default")
    assert not sources
    assert sources.of("orders") is None


@pytest.mark.parametrize(
    ("tables", "mistake"),
    [
        ({"source": {"nam": "x"}}, "topics.'t'.source.nam: no such setting; did you mean name?"),
        ({"source": {"type": "a.B"}}, "topics.'t'.source.name: is missing; set the queue, stream"),
        ({"source": 3}, "topics.'t'.source: must be a name, or a table with name"),
        ({"source": "a\nb"}, "topics.'t'.source.name: has control characters"),
    ],
)
def test_mistakes_name_the_setting(tables: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(environ={}, transport="kafka://a", topics={"t": tables})
    assert any(text.startswith(mistake) for text in caught.value.problems)


def test_groups_have_no_source() -> None:
    with pytest.raises(ConfigError, match=r"groups.'g'.source: no such setting"):
        Config(environ={}, transport="kafka://a", groups={"g": {"source": "x"}})
