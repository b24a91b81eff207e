"""The small parts of the generator, each by itself."""

from __future__ import annotations

import io
import keyword
from pathlib import Path

import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorResponse

from protoc_gen_protoflow import __version__, docs, names, parameters, resources, text
from protoc_gen_protoflow.__main__ import main
from protoc_gen_protoflow.errors import UserError
from protoc_gen_protoflow.imports import python_module
from protoc_gen_protoflow.parameters import Parameters

from .conftest import Compile


@pytest.mark.parametrize(
    ("rpc", "method"),
    [
        ("BillOrder", "bill_order"),
        ("HTTPGet", "http_get"),
        ("GetURL2Go", "get_url2_go"),
        ("Import", "import_"),
        ("async", "async_"),
        ("match", "match"),
        ("None", "none"),
        ("bill_order", "bill_order"),
        ("ABC", "abc"),
    ],
)
def test_method_names(rpc: str, method: str) -> None:
    assert names.method_name(rpc) == method


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("shop/v1/orders.proto", "Orders"),
        ("orders.protodevel", "Orders"),
        ("_1.proto", "File1"),
        ("order-events.proto", "Order"),
        ("order_event.proto", "Order"),
        ("events.proto", ""),
        ("a/event.proto", ""),
        ("orders_v1.proto", "OrdersV1"),
        ("a/b.c-d.proto", "BCD"),
    ],
)
def test_event_producers(path: str, stem: str) -> None:
    assert names.event_producer(path) == f"{stem}EventProducer"


@pytest.mark.parametrize(
    ("path", "taken", "producer"),
    [
        ("event.proto", ["EventProducer"], "EventEventProducer"),
        ("order_events.proto", ["OrderEventProducer"], "OrderEventsEventProducer"),
        ("orders.proto", ["OrdersEventProducer"], "OrdersFileEventProducer"),
        (
            "orders.proto",
            ["OrdersEventProducer", "OrdersFileEventProducer"],
            "OrdersFile2EventProducer",
        ),
    ],
)
def test_event_producers_give_way(path: str, taken: list[str], producer: str) -> None:
    assert names.event_producer(path, taken) == producer


def test_service_stems() -> None:
    assert names.service_stem("OrdersService") == "Orders"
    assert names.service_stem("Orders") == "Orders"
    assert names.service_stem("Service") == "Service"


def test_publish_names() -> None:
    assert names.publish_name("Order.HTTPLine") == "publish_order_http_line"


def test_module_stems() -> None:
    assert names.module_stem("a-b/c-d.e.proto") == "a_b.c_d.e"
    assert names.module_stem("a/b.protodevel") == "a.b"
    assert names.bad_module_segment("a.caf\u00e9") is None
    assert names.bad_module_segment("a.cafe\u0301") == "cafe\u0301"
    assert all(names.bad_module_segment(f"a.{word}.b") == word for word in keyword.kwlist)
    assert all(names.bad_module_segment(f"a.{word}.b") is None for word in keyword.softkwlist)


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("shop/v1/orders.proto", "myapp.gen.shop.v1.orders_pb2"),
        ("shop/v2/orders.proto", "elsewhere.orders_pb2"),
        ("shopping/x.proto", "p.shopping.x_pb2"),
        ("x.proto", "p.x_pb2"),
        ("google/type/money.proto", "google.type.money_pb2"),
        ("protoflow/v1/options.proto", "protoflow.v1.options_pb2"),
        ("buf/validate/validate.proto", "buf.validate.validate_pb2"),
    ],
)
def test_import_prefix_and_map(path: str, module: str) -> None:
    options = parameters.parse(
        "import_prefix=p,import_map=shop/=myapp.gen.shop,import_map=shop/v2=elsewhere"
    )
    assert python_module(path, options) == module


def test_parameters() -> None:
    assert parameters.parse("") == Parameters()
    assert parameters.parse("handlers=both, import_prefix=a.b").handlers == "both"
    assert parameters.parse("asyncapi=json").asyncapi == "json"


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        ("x", "unknown parameter 'x'; known are handlers, import_prefix, import_map and asyncapi"),
        ("asyncapi=xml", "parameter asyncapi is 'xml'; use one of none, yaml, json"),
        ("handlers", "parameter handlers has no value; write handlers=..."),
        ("handlers=", "parameter handlers has no value"),
        ("handlers=all", "parameter handlers is 'all'; use one of async, sync, both"),
        ("handlers=sync,handlers=sync", "parameter handlers is given twice"),
        ("import_prefix=a..b", "parameter import_prefix is 'a..b'; use a Python package"),
        ("import_prefix=a.class", "parameter import_prefix is 'a.class'"),
        ("import_prefix=a/b", "parameter import_prefix is 'a/b'"),
        ("import_map=shop", "parameter import_map is 'shop'; use a directory and a package"),
        ("import_map=/=x", "parameter import_map is '/=x'"),
        ("import_map=a/=1x", "parameter import_map is 'a/=1x'"),
        ("import_map=a=x,import_map=a/=y", "parameter import_map names a/ twice"),
    ],
)
def test_wrong_parameters(given: str, reported: str) -> None:
    with pytest.raises(UserError) as caught:
        parameters.parse(given)
    assert str(caught.value).startswith(reported)


def test_all_wrong_parameters_at_once() -> None:
    with pytest.raises(UserError) as caught:
        parameters.parse("x,y,handlers=z")
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    "value", ["", "a", "it's", '"', "'\"", "\\", "\\'\"", "\n\r\0", "é\u2028", "''\"", '""\'']
)
def test_literals_mean_what_they_say(value: str) -> None:
    assert eval(text.literal(value)) == value


def test_literals_prefer_double_quotes() -> None:
    assert text.literal("it's") == '"it\'s"'
    assert text.literal('"a"') == "'\"a\"'"
    assert text.literal("'\"") == '"\'\\""'


def test_comments_are_cleaned() -> None:
    assert docs.clean(" a\n b\n   c\n\n") == "a\nb\n  c"
    assert docs.clean(" buf:lint:ignore X\n") == ""
    assert docs.clean(" a\x0bb\u2028c\td\x07 \n") == "a\nb\nc       d"


def run(*argv: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
    stdout, stderr = io.BytesIO(), io.StringIO()
    status = main(argv, io.BytesIO(stdin), stdout, stderr)
    return status, stdout.getvalue(), stderr.getvalue()


def test_version() -> None:
    assert run("--version") == (0, f"protoc-gen-protoflow {__version__}\n".encode(), "")


def test_include_holds_the_annotations() -> None:
    status, out, _ = run("--include")
    assert status == 0
    assert (Path(out.decode().strip()) / "protoflow/v1/options.proto").is_file()


def test_export_protos(tmp_path: Path) -> None:
    assert run("--export-protos", str(tmp_path / "x"))[0] == 0
    exported = tmp_path / "x/protoflow/v1/options.proto"
    assert (
        exported.read_text() == Path(resources.include(), "protoflow/v1/options.proto").read_text()
    )
    assert run("--export-protos", str(tmp_path / "x"))[0] == 0


def test_export_protos_to_where_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, _, err = run("--export-protos", str(tmp_path / "file"))
    assert status == 1
    assert err.startswith("cannot copy the annotations to ")


@pytest.mark.parametrize("argv", [["x"], ["--export-protos"], ["--version", "x"], ["-v"]])
def test_other_arguments(argv: list[str]) -> None:
    status, out, err = run(*argv)
    assert (status, out) == (2, b"")
    assert err.startswith("usage: ")


def test_stdin_that_is_no_request() -> None:
    status, out, err = run(stdin=b"\xff\xff")
    assert status == 1
    assert out == b""
    assert "no CodeGeneratorRequest" in err
    assert "Traceback" not in err


def test_features_are_declared(compile_request: Compile) -> None:
    status, out, _ = run(stdin=compile_request("message X {}").SerializeToString())
    response = CodeGeneratorResponse.FromString(out)
    assert status == 0
    assert response.supported_features == 3
    assert (response.minimum_edition, response.maximum_edition) == (998, 1001)
    assert not response.file
    assert not response.HasField("error")


def test_wrong_parameters_are_an_error_in_the_response(compile_request: Compile) -> None:
    request = compile_request("message X {}", parameter="nonsense=1")
    _, out, _ = run(stdin=request.SerializeToString())
    assert "unknown parameter 'nonsense'" in CodeGeneratorResponse.FromString(out).error
