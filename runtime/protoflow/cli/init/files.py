"""The files of a new project."""

from __future__ import annotations

import json
from string import Template

_PYPROJECT = """\
[project]
name = "$name"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["protoc-gen-protoflow$runtime_extra"]

[dependency-groups]
dev = ["protoc-gen-protoflow[cli,codegen]", "pytest", "pytest-asyncio"]

[tool.protoflow]
config = "protoflow.toml"

[tool.protoflow.generate]
out = "gen"

[tool.pytest.ini_options]
pythonpath = [".", "gen"]
asyncio_mode = "auto"
"""

_SETTINGS = """\
# Every setting: protoflow config --all
transport = $url
"""

_PROTO = """\
syntax = "proto3";

package $package.v1;

import "protoflow/v1/options.proto";

// An order as a customer placed it.
message OrderPlaced {
  option (protoflow.v1.message).topic = "$package.orders.placed";

  // Orders of one id are handled in turn.
  string order_id = 1 [(protoflow.v1.field).partition_key = true];
  // The sum, in cents.
  int64 cents = 2;
  // Never shown in logs.
  string email = 3 [(protoflow.v1.field).sensitive = true];
}

// An order for which a bill was written.
message OrderBilled {
  option (protoflow.v1.message).topic = "$package.orders.billed";

  string order_id = 1 [(protoflow.v1.field).partition_key = true];
  int64 cents = 2;
}

service Orders {
  option (protoflow.v1.service).consumer_group = "billing";

  // Bills an order. A failed run is repeated twice, then the order is dead-lettered.
  rpc BillOrder(OrderPlaced) returns (OrderBilled) {
    option (protoflow.v1.consume) = {
      delivery: {
        ordering: ORDERING_PER_KEY
        retry: {max_attempts: 3, initial_backoff: {nanos: 100000000}}
      }
    };
    option (protoflow.v1.publish) = {};
  }
}
"""

_APP = """\
\"\"\"The handlers of $name. Run them with `protoflow run app`.\"\"\"

from protoflow import Context

from $package.v1.orders_pb2 import OrderBilled, OrderPlaced
from $package.v1.orders_protoflow import OrdersHandler


class Billing(OrdersHandler):
    async def bill_order(self, order: OrderPlaced, context: Context, /) -> OrderBilled:
        if order.cents <= 0:
            raise ValueError(f"order {order.order_id} has no sum")
        context.logger.info("billed %s: %d cents", order.order_id, order.cents)
        return OrderBilled(order_id=order.order_id, cents=order.cents)
"""

_TEST = """\
from protoflow import testing

from $package.v1.orders_pb2 import OrderBilled, OrderPlaced
from $package.v1.orders_protoflow import OrdersEventProducer

from app import Billing


async def test_an_order_is_billed() -> None:
    async with testing.run(Billing()) as service:
        orders = OrdersEventProducer(service)
        await orders.publish_order_placed(OrderPlaced(order_id="A-1", cents=1990))
        await service.settled()
        (billed,) = service.published(OrderBilled)
        assert billed.cents == 1990
"""

_IGNORED = """\
gen/
*.db
*.db-*
__pycache__/
.venv/
"""


def of(name: str, package: str, url: str, extra: str) -> dict[str, str]:
    """Returns the files by path.

    Args:
        name: the name of the project.
        package: the name as a Python and protobuf package.
        url: the URL of the transport.
        extra: the extra that installs the client of the transport; "" if it needs none.
    """
    values = {
        "name": name,
        "package": package,
        # JSON writes text in the same way as TOML.
        "url": json.dumps(url),
        "runtime_extra": f"[{extra}]" if extra else "",
    }
    texts = {
        "pyproject.toml": _PYPROJECT,
        "protoflow.toml": _SETTINGS,
        f"proto/{package}/v1/orders.proto": _PROTO,
        "app.py": _APP,
        "tests/test_app.py": _TEST,
        ".gitignore": _IGNORED,
    }
    return {path: Template(text).substitute(values) for path, text in texts.items()}
