"""Wheel, sdist and editable: installed far from the checkout they generate, import and run."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from protoflow.transports.built_in import BUILT_IN

from tests.outside import outside
from tests.packaging.conftest import ROOT, Distributions, Environment

#: The distributions are built once, for all.
pytestmark = [pytest.mark.xdist_group("distributions"), pytest.mark.timeout(300)]

PROGRAM = """
import asyncio, sys
from protoflow import Config, Service
from shop.v1.orders_pb2 import OrderBilled, OrderPlaced
from shop.v1.orders_protoflow import MailHandler, OrdersEventProducer, OrdersHandler

class Billing(OrdersHandler):
    async def bill_order(self, order, context, /):
        return OrderBilled(order_id=order.order_id, cents=7)

class Mail(MailHandler):
    def __init__(self):
        self.sent = asyncio.Queue()
    async def send_bill(self, bill, context, /):
        self.sent.put_nowait((bill.order_id, bill.cents))

async def main():
    mail = Mail()
    service = Service(Config(transport=f"sqlite:///{sys.argv[1]}"))
    service.register(Billing(), mail)
    async with service:
        await OrdersEventProducer(service).publish_order_placed(OrderPlaced(order_id="a"))
        print(await asyncio.wait_for(mail.sent.get(), 20))

asyncio.run(main())
"""


@pytest.fixture(scope="session")
def installed(
    environment: Callable[..., Environment], distributions: Distributions
) -> Callable[[str], Environment]:
    """One environment for each way to install, made when asked for."""
    made: dict[str, Environment] = {}
    ways: dict[str, tuple[object, ...]] = {
        "wheel": (f"{distributions.wheel}[codegen]",),
        "sdist": (f"{distributions.sdist}[codegen]",),
        "editable": ("--editable", f"{ROOT}[codegen]"),
        "slim": (distributions.wheel,),
    }

    def get(way: str) -> Environment:
        if way not in made:
            made[way] = environment(way, *ways[way])
        return made[way]

    return get


@pytest.mark.parametrize("way", ["wheel", "sdist", "editable"])
def test_generates_imports_and_runs(installed: Callable[[str], Environment], way: str) -> None:
    fresh = installed(way)
    gen = fresh.generate()
    out = fresh.run("-W", "error", "-c", PROGRAM, fresh.work / "queue.db", PYTHONPATH=str(gen))
    assert out.strip() == "('a', 7)"
    where = fresh.run("-c", "import protoflow; print(protoflow.__file__)").strip()
    assert where.startswith(str(ROOT)) == (way == "editable")


def test_a_runtime_needs_two_packages(installed: Callable[[str], Environment]) -> None:
    gen = installed("wheel").generate()
    slim = installed("slim")
    out = slim.run("-W", "error", "-c", PROGRAM, slim.work / "queue.db", PYTHONPATH=str(gen))
    assert out.strip() == "('a', 7)"
    listing = "import importlib.metadata as m; print(*{d.name.lower() for d in m.distributions()})"
    names = set(slim.run("-c", listing).split())
    # python-ulid asks for typing_extensions before Python 3.12.
    assert names - {"typing_extensions"} == {"protobuf", "python-ulid", "protoc-gen-protoflow"}


@pytest.mark.parametrize(
    ("url", "extra"),
    [(item.example, item.extra) for item in BUILT_IN if item.extra],
)
def test_a_missing_client_is_named(
    installed: Callable[[str], Environment], url: str, extra: str
) -> None:
    code = f"""
import protoflow
try:
    protoflow.connect({url!r})
except protoflow.ProtoflowError as error:
    print(isinstance(error, ImportError), error)
"""
    out = installed("slim").run("-c", code)
    assert out.startswith("True ")
    assert f"pip install 'protoc-gen-protoflow[{extra}]'" in out


def test_a_missing_generator_is_named(installed: Callable[[str], Environment]) -> None:
    """In an environment without the extra, the plugin says what it lacks, or lacks nothing."""
    wheel, slim = installed("wheel"), installed("slim")
    include = subprocess.run([slim.plugin, "--include"], capture_output=True, text=True)
    protos = ROOT / "examples" / "orders" / "proto"
    (slim.work / "out").mkdir(exist_ok=True)
    done = subprocess.run(
        [
            *(wheel.python, "-m", "grpc_tools.protoc"),
            *(f"--plugin=protoc-gen-protoflow={slim.plugin}", f"--protoflow_out={slim.work}/out"),
            *(f"-I{protos}", f"-I{include.stdout.strip()}", "shop/v1/orders.proto"),
        ],
        capture_output=True,
        text=True,
        env=outside(),
    )
    if done.returncode:
        assert "pip install 'protoc-gen-protoflow[codegen]'" in done.stderr
        assert "Traceback" not in done.stderr
    else:
        assert (slim.work / "out" / "shop" / "v1" / "orders_protoflow.py").exists()


def test_the_sdist_can_be_worked_on(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for needed in (
        *("Makefile", "README.md", "LICENSE", "pyproject.toml", "buf.yaml", ".importlinter"),
        *("SECURITY.md", "CONTRIBUTING.md", ".ci/run", ".pre-commit-config.yaml"),
        *("tests/packaging/conftest.py", "examples/orders/demo.py", "scripts/python.sh"),
        *("docs/getting-started.md", "proto/protoflow/v1/options.proto"),
    ):
        assert needed in names, needed
    # Only what is committed: nothing generated, no environment.
    assert not [name for name in names if Path(name).parts[:1] == (".venv",) or "/gen/" in name]
