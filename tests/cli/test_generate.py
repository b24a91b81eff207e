"""`protoflow generate`: roots, packages, --check, and errors with their place."""

from __future__ import annotations

import subprocess
import sys

import pytest
from protoflow.cli.generate import packages, validate_proto

from tests.cli.conftest import ORDERS, Project

_SHAPES = {
    "root.proto": """
syntax = "proto3";
import "protoflow/v1/options.proto";
message Root { option (protoflow.v1.message).topic = "root"; string id = 1; }
""",
    "other.proto": """
syntax = "proto3";
package other;
import "root.proto";
import public "pub/base.proto";
message Other { Root root = 1; pub.Base base = 2; }
""",
    "pub/base.proto": """
syntax = "proto3";
package pub;
import "shop/class/v1/kw.proto";
message Base { shop.class.v1.Kw kw = 1; enum E { A = 0; } E e = 2; }
""",
    "shop/class/v1/kw.proto": """
syntax = "proto3";
package shop.class.v1;
import "buf/validate/validate.proto";
message Kw { string id = 1 [(buf.validate.field).string.min_len = 1]; }
""",
    "my-shop/the-orders.proto": """
syntax = "proto3";
package my_shop;
import "protoflow/v1/options.proto";
import "shop/class/v1/kw.proto";
import "root.proto";
import "other.proto";
message Placed {
  option (protoflow.v1.message).topic = "placed";
  string id = 1 [(protoflow.v1.field).partition_key = true];
  shop.class.v1.Kw kw = 2;
  pub.Base base = 3;
}
service Orders {
  option (protoflow.v1.service).consumer_group = "g";
  rpc Bill(Placed) returns (Root) {
    option (protoflow.v1.consume) = {};
    option (protoflow.v1.publish) = {};
  }
  rpc Keyword(shop.class.v1.Kw) returns (shop.class.v1.Kw);
}
""",
}
_EMPTY_SEGMENT = """\
syntax = "proto3";
import "protoflow/v1/options.proto";
message X { option (protoflow.v1.message).topic = "a..b"; }
"""
_MODULES = (
    *("root_protoflow", "other_pb2", "other_pb2_grpc", "pub.base_pb2", "buf.validate.validate_pb2"),
    *("my_shop.the_orders_protoflow", "my_shop.the_orders_pb2_grpc", "shop.class.v1.kw_pb2_grpc"),
)


@pytest.mark.parametrize("package", ["", "myapp.gen"])
def test_every_shape_of_contract_imports_and_pickles(project: Project, package: str) -> None:
    for name, text in _SHAPES.items():
        project.write(f"proto/{name}", text)
    out = package.replace(".", "/") or "gen"
    done = project("generate", "--grpc", "--out", out, "--package", package)
    assert done.code == 0, done.err
    prefix = f"{package}." if package else ""
    printed = project.python(f"""
import importlib, pickle
for name in {_MODULES!r}:
    importlib.import_module({prefix!r} + name)
orders = importlib.import_module({prefix!r} + "my_shop.the_orders_pb2")
keyword = importlib.import_module({prefix!r} + "shop.class.v1.kw_pb2")
placed = orders.Placed(id="1", kw=keyword.Kw(id="2"))
assert pickle.loads(pickle.dumps(placed)) == placed
print(type(placed).__module__, type(placed.kw).__module__)
""")
    assert printed.split() == [
        f"{prefix}my_shop.the_orders_pb2",
        f"{prefix}shop.class.v1.kw_pb2",
    ]
    assert project("generate", "--grpc", "--out", out, "--package", package, "--check").code == 0


def test_a_package_passes_the_type_checkers(project: Project) -> None:
    project.write("proto/shop/v1/orders.proto", ORDERS)
    other = 'syntax = "proto3";\npackage shop.v1;\nimport "shop/v1/orders.proto";\n'
    project.write("proto/shop/v1/more.proto", f"{other}message More {{ OrderPlaced order = 1; }}\n")
    assert project("generate", "-q", "--out", "myapp/gen", "--package", "myapp.gen").code == 0
    for checker in (["mypy", "-p", "myapp.gen"], ["pyright", "myapp"]):
        done = subprocess.run(
            [sys.executable, "-m", *checker], cwd=project.folder, env=project.environ,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


def test_only_modules_of_this_run_move() -> None:
    source = """\
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from shop.v1 import orders_pb2 as _orders_pb2
from shop.v2 import orders_pb2 as _others_pb2
from shop.v1.orders_pb2 import Order as Order
import root_pb2 as root__pb2
x = importlib.import_module('shop.v1.orders_pb2')
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, 'shop.v1.orders_pb2', _globals)
"""
    assert (
        packages.rewrite(source, "a.b", {"shop.v1.orders_pb2", "root_pb2"})
        == """\
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from a.b.shop.v1 import orders_pb2 as _orders_pb2
from shop.v2 import orders_pb2 as _others_pb2
from a.b.shop.v1.orders_pb2 import Order as Order
from a.b import root_pb2 as root__pb2
x = importlib.import_module('a.b.shop.v1.orders_pb2')
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, 'a.b.shop.v1.orders_pb2', _globals)
"""
    )


def test_protovalidate_still_holds_the_descriptors_of_its_rules() -> None:
    found = validate_proto.descriptors()
    assert found is not None
    assert validate_proto.NAME in [file.name for file in found.file]


def test_what_is_up_to_date_is_not_written(shop: Project) -> None:
    module = shop.folder / "gen/shop/v1/orders_pb2.py"
    before = module.stat().st_mtime_ns
    done = shop("generate", "-q")
    assert (done.code, done.out) == (0, "3 files are up to date\n")
    assert module.stat().st_mtime_ns == before


def test_check_finds_stale_files_and_orphans_and_writes_nothing(shop: Project) -> None:
    assert shop("generate", "--check", "-q").code == 0
    shop.write("proto/shop/v1/orders.proto", ORDERS.replace("cents = 2", "sum = 2"))
    shop.write("gen/shop/v1/gone_pb2.py", "")
    done = shop("generate", "--check", "-q")
    assert done.code == 1
    assert "stale  gen/shop/v1/orders_pb2.py" in done.lines
    assert "orphan gen/shop/v1/gone_pb2.py: no .proto file generates it; delete it" in done.lines
    assert shop("generate", "--check", "--json", "-q").json() == {
        "out": "gen",
        "stale": [f"shop/v1/orders_pb2.{end}" for end in ("py", "pyi")],
        "orphans": ["shop/v1/gone_pb2.py"],
        "unchanged": 1,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("message {", "proto/bad.proto:1:9: Expected message name."),
        (_EMPTY_SEGMENT, "proto/bad.proto:3:13: X: topic is 'a..b'"),
    ],
)
def test_errors_of_a_contract_have_their_place(project: Project, text: str, said: str) -> None:
    project.write("proto/bad.proto", text)
    done = project("generate", "-q")
    assert done.code == 2
    assert said in done.err
    assert not (project.folder / "gen").exists()


def test_roots_come_from_buf_yaml(project: Project) -> None:
    project.write("buf.yaml", "version: v2\nmodules:\n  - path: api\n  - path: 'more'\nlint: {}\n")
    project.write("api/a.proto", 'syntax = "proto3";')
    project.write("more/b.proto", 'syntax = "proto3";\nimport "a.proto";')
    done = project("generate", "-q", "--json")
    assert {name for name in done.json()["written"] if name.endswith(".py")} == {
        "a_pb2.py",
        "b_pb2.py",
    }


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("output = 'gen'", "[tool.protoflow.generate] has no output; known: "),
        ("grpc = 1", "[tool.protoflow.generate] grpc is 1; write true or false"),
        ("roots = 'proto'", "[tool.protoflow.generate] roots is 'proto'; write a list of strings"),
    ],
)
def test_wrong_settings_are_named(project: Project, table: str, said: str) -> None:
    project.write("pyproject.toml", f"[tool.protoflow.generate]\n{table}\n")
    project.write("proto/a.proto", 'syntax = "proto3";')
    done = project("generate", "-q")
    assert done.code == 2
    assert said in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "nothing: no such file or directory"),
        (["-I", "nothing"], "root nothing is not a directory"),
        (["empty"], "empty: the directory contains no .proto file"),
        (["elsewhere/a.proto"], "elsewhere/a.proto is in none of the roots (proto)"),
        (["--watch", "--check"], "--watch goes neither with --check"),
    ],
)
def test_wrong_arguments_are_named(project: Project, arguments: list[str], said: str) -> None:
    project.write("proto/a.proto", 'syntax = "proto3";')
    project.write("elsewhere/a.proto", 'syntax = "proto3";')
    (project.folder / "empty").mkdir()
    done = project("generate", "-q", *arguments)
    assert done.code == 2
    assert said in done.err


def test_of_some_files_the_others_are_no_orphans(project: Project) -> None:
    project.write("proto/a.proto", 'syntax = "proto3";')
    project.write("proto/b.proto", 'syntax = "proto3";')
    assert project("generate", "-q").code == 0
    done = project("generate", "-q", "proto/a.proto", "--check")
    assert (done.code, done.out) == (0, "2 files are up to date\n")


def test_modules_of_libraries_are_no_orphans(project: Project) -> None:
    project.write("proto/a.proto", 'syntax = "proto3";')
    project.write(".venv/lib/x_pb2.py", "")
    project.write("env/pyvenv.cfg", "")
    project.write("env/y_pb2.py", "")
    assert "orphan" not in project("generate", "-q", "--out", ".").out


def test_a_file_that_another_root_hides_is_an_error(project: Project) -> None:
    project.write("one/a.proto", 'syntax = "proto3";')
    project.write("two/a.proto", 'syntax = "proto3";')
    done = project("generate", "-q", "-I", "one", "-I", "two")
    assert done.code == 2
    assert "two/a.proto is hidden by one/a.proto: both are a.proto" in done.err


def test_a_link_in_a_root_is_of_that_root(project: Project) -> None:
    project.write("shared/a.proto", 'syntax = "proto3";')
    (project.folder / "proto").mkdir()
    (project.folder / "proto/a.proto").symlink_to("../shared/a.proto")
    assert project("generate", "-q").lines == ["wrote  gen/a_pb2.py", "wrote  gen/a_pb2.pyi"]


def test_an_output_that_cannot_be_written_ends_with_2(project: Project) -> None:
    project.write("proto/a.proto", 'syntax = "proto3";')
    done = project("generate", "-q", "--out", "proto/a.proto")
    assert (done.code, done.out) == (2, "")
    assert "File exists" in done.err


def test_watch_generates_again(project: Project) -> None:
    project.write("proto/a.proto", 'syntax = "proto3";\nmessage A {}\n')
    watching = project.start("generate", "-q", "--watch")
    try:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "wrote  gen/a_pb2.py\n"
        project.write("proto/b.proto", 'syntax = "proto3";\nmessage B {}\n')
        while watching.stdout.readline() != "wrote  gen/b_pb2.py\n":
            pass
    finally:
        watching.terminate()
        watching.communicate(timeout=20)
