"""`protoflow export`: the manifests, by the schemas of those who read them."""

from __future__ import annotations

import configparser
import http.client
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import APP, ORDERS, Project
from tests.cli.manifests import mistakes


def exported(project: Project, *arguments: str) -> list[dict[str, Any]]:
    done = project("export", *arguments)
    assert done.code == 0, done.err
    return [*yaml.safe_load_all(done.out)]


def scaled(project: Project, *arguments: str) -> list[dict[str, Any]]:
    """The triggers of the ScaledObject."""
    found = exported(project, "keda", "--name", "shop", *arguments)[-1]["spec"]["triggers"]
    assert isinstance(found, list)
    return found


def test_the_schemas_accept_all_manifests(shop: Project, tmp_path: Path) -> None:
    shop.environ.pop("PROTOFLOW_TRANSPORT", None)
    shop.write("protoflow.toml", 'transport = "kafka://ann:hunter2@k1,k2:9093"\n')
    file = ("--config", "protoflow.toml")
    found = exported(
        shop, "k8s", "app:service", "--name", "shop", "--image", "shop:1", "--pod-monitor", *file
    )
    found += exported(shop, "keda", "--name", "shop", *file)
    kinds = [one["kind"] for one in found]
    assert kinds == [
        "Deployment", "PodDisruptionBudget", "PodMonitor", "TriggerAuthentication", "ScaledObject",
    ]  # fmt: skip
    assert mistakes(found, tmp_path) == []
    assert "hunter2" not in json.dumps(found)
    assert '"ann"' not in json.dumps(found)
    assert "authorization" not in found[2]["spec"]["podMetricsEndpoints"][0]
    found[0]["spec"]["replicas"] = "two"
    assert mistakes(found, tmp_path) == ["data/spec/replicas must be integer"]


def test_prometheus_gets_the_token_of_readers(shop: Project, tmp_path: Path) -> None:
    shop.environ["PROTOFLOW_HTTP_READ_TOKEN"] = "looker"
    found = exported(shop, "k8s", "app", "--name", "shop", "--image", "i", "--pod-monitor")
    assert found[2]["spec"]["podMetricsEndpoints"][0]["authorization"] == {
        "credentials": {"name": "shop-settings", "key": "http_read_token"}
    }
    assert mistakes(found, tmp_path) == []


def test_the_process_gets_more_time_than_its_shutdown(shop: Project) -> None:
    shop.write("protoflow.toml", "shutdown_timeout = 90\nhttp_port = 8099\n")
    pod = exported(
        shop, "k8s", "app", "--name", "shop", "--image", "i", "--config", "protoflow.toml"
    )[0]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 100
    (container,) = pod["containers"]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert environment["PROTOFLOW_HTTP_PORT"] == "8099"
    assert environment["PROTOFLOW_CONFIG"] == "/etc/protoflow/protoflow.toml"
    assert container["args"] == ["run", "app", "--log-format", "json"]


@pytest.mark.parametrize(
    ("url", "type", "metadata"),
    [
        (
            "kafka+ssl://u:p@k1,k2:9093",
            "kafka",
            {
                "bootstrapServers": "k1:9092,k2:9093",
                "consumerGroup": "billing",
                "topic": "orders.placed",
                "lagThreshold": "50",
                "offsetResetPolicy": "earliest",
                "sasl": "plaintext",
                "tls": "enable",
            },
        ),
        (
            "amqp://u:p@r/sales",
            "rabbitmq",
            {
                "protocol": "amqp",
                "hostFromEnv": "PROTOFLOW_TRANSPORT",
                "queueName": "protoflow/orders.placed/billing",
                "mode": "QueueLength",
                "value": "50",
            },
        ),
        (
            "jetstream://u:p@n:4333",
            "nats-jetstream",
            {
                "natsServerMonitoringEndpoint": "n:8222",
                "account": "$G",
                "stream": "protoflow-topic-orders_placed",
                "consumer": "billing",
                "lagThreshold": "50",
            },
        ),
    ],
)
def test_a_trigger_names_what_the_broker_has(
    shop: Project, url: str, type: str, metadata: dict[str, str]
) -> None:
    (trigger,) = scaled(shop, "--transport", url, "--lag", "50")
    assert (trigger["type"], trigger["metadata"]) == (type, metadata)


@pytest.mark.parametrize("named", ["amqp://r", "kafka://ann:hunter2@other"])
def test_a_trigger_never_logs_in_with_the_credentials_of_another_transport(
    shop: Project, named: str
) -> None:
    more = """
    service Shipping {
      rpc Ship(OrderBilled) returns (google.protobuf.Empty) { option (protoflow.v1.consume) = {}; }
    }
    """
    contract = ORDERS.replace("import", 'import "google/protobuf/empty.proto";\nimport', 1) + more
    shop.write("proto/shop/v1/orders.proto", contract)
    assert shop("generate", "-q").code == 0
    shop.environ.pop("PROTOFLOW_TRANSPORT", None)
    settings = f"""
    transport = "kafka://ann:secret@k"
    transports.other = "{named}"
    topics."orders.billed".transport = "other"
    """
    shop.write("protoflow.toml", settings)
    done = shop("export", "keda", "--name", "shop", "--config", "protoflow.toml")
    assert (done.code, done.out) == (2, "")
    assert "KEDA cannot log in to the transport other" in done.err
    assert "hunter2" not in done.err
    shop.write("protoflow.toml", settings.replace(named, "kafka://other"))
    found = scaled(shop, "--config", "protoflow.toml")
    assert [one["metadata"]["bootstrapServers"] for one in found] == ["k:9092", "other:9092"]
    assert ["authenticationRef" in one for one in found] == [True, False]


def test_each_shard_has_a_trigger(shop: Project) -> None:
    found = scaled(shop, "--transport", "amqp://r?shards=3")
    queues = [one["metadata"]["queueName"] for one in found]
    assert len(set(queues)) == 3


def test_prometheus_gives_the_lag_of_the_others(shop: Project) -> None:
    done = shop("export", "keda", "--name", "shop", "--transport", "redis://r")
    assert (done.code, "give --prometheus URL" in done.err) == (2, True)
    (trigger,) = scaled(shop, "--transport", "redis://r", "--prometheus", "http://p:9090")
    assert trigger["metadata"]["query"] == (
        'max(protoflow_lag_messages{topic="orders.placed",group="billing"})'
    )
    none = shop("export", "keda", "--name", "s", "--prometheus", "http://p", "--min", "0")
    assert (none.code, "nothing reports it" in none.err) == (2, True)


def test_a_broadcast_handler_is_not_scaled(shop: Project) -> None:
    shop.write(
        "proto/shop/v1/orders.proto",
        ORDERS.replace("delivery: {", "broadcast: true delivery: {").replace(
            "        ordering: ORDERING_PER_KEY\n", ""
        ),
    )
    assert shop("generate", "-q").code == 0
    done = shop("export", "keda", "--name", "shop", "--transport", "kafka://k")
    assert (done.code, "nothing to scale" in done.err) == (2, True)


@pytest.mark.parametrize("kind", [("k8s", "app", "--image", "i"), ("keda",), ("systemd", "app")])
def test_a_name_that_kubernetes_refuses_is_reported(shop: Project, kind: tuple[str, ...]) -> None:
    done = shop("export", *kind, "--name", "My_Shop", "--transport", "kafka://k")
    assert (done.code, done.out) == (2, "")
    assert "--name 'My_Shop' cannot name an object of Kubernetes" in done.err


def test_the_unit_drains_before_it_kills(shop: Project) -> None:
    done = shop("export", "systemd", "app:service", "--name", "shop", "--transport", "sqlite:///q")
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation says
    unit.read_string(done.out)
    assert unit["Service"]["TimeoutStopSec"] == "40"
    assert unit["Service"]["ExecStart"].endswith("protoflow run app:service --log-format json")


def test_the_probes_and_the_metrics_answer_under_the_address_of_a_pod(shop: Project) -> None:
    shop.write("app.py", APP)
    found = exported(shop, "k8s", "app", "--name", "shop", "--image", "i")
    (container,) = found[0]["spec"]["template"]["spec"]["containers"]
    ports = {one["name"]: _free_port() for one in container["ports"]}
    shop.environ |= {
        "PROTOFLOW_HTTP_TOKEN": "secret",  # without one, a page on loopback serves localhost only
        "PROTOFLOW_TRANSPORT": f"sqlite:///{shop.folder}/queue.db",
        "PROTOFLOW_HTTP_PORT": str(ports["http"]),
        "PROTOFLOW_METRICS_PORT": str(ports["metrics"]),
    }
    process = shop.start(*container["args"])
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        get = container[probe]["httpGet"]
        assert _status(ports[get["port"]], get["path"]) == 200
    assert _status(ports["metrics"], "/metrics") == 200
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def _status(port: int, path: str) -> int:
    """What kubelet is answered: it names the address of the pod."""
    deadline = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            headers = {"Host": f"10.1.2.3:{port}", "Authorization": "Bearer secret"}
            connection.request("GET", path, headers=headers)
            status = connection.getresponse().status
        except OSError:
            status = 0
        finally:
            connection.close()
        if status == 200 or time.monotonic() > deadline:
            return status
        time.sleep(0.05)
