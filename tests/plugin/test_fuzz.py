"""Any name, any comment, any string: a module that compiles as black leaves it, or an error."""

from __future__ import annotations

import ast
import builtins
import keyword

import black
from black.mode import TargetVersion
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import HEAD, Compile, answer

MODE = black.Mode(target_versions={TargetVersion.PY311})
WORDS = [
    *keyword.kwlist,
    *keyword.softkwlist,
    *dir(builtins),
    *("self", "message", "messages", "context", "key", "metadata", "delay", "id", "Handler"),
    *("_pf", "_c", "_dt", "_abc", "_messages", "_orders_pb2", "__init__", "__slots__", "__all__"),
    *("mro", "register", "_abc_impl", "__class__", "annotations", "coding", "print", "exec"),
]
identifiers = st.one_of(
    st.sampled_from(WORDS),
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,30}", fullmatch=True),
    st.from_regex(r"[A-Z][A-Za-z0-9]{60,90}", fullmatch=True),
)
# A comment in a .proto ends at a line break, and NUL ends the file for protoc.
texts = st.characters(exclude_characters="\0\n", exclude_categories=["Cs"])
comments = st.text(texts, max_size=120)
strings = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    service=identifiers,
    rpcs=st.lists(identifiers, min_size=1, max_size=3, unique=True),
    message=identifiers,
    field=identifiers,
    words=st.lists(comments, max_size=4),
    type_=strings,
)
def test_anything(
    compile_request: Compile,
    service: str,
    rpcs: list[str],
    message: str,
    field: str,
    words: list[str],
    type_: str,
) -> None:
    if message == service or len({service, message}) < 2:
        service += "X"
    comment = "".join(f"// {line}\n" for line in words)
    text = (
        f"{HEAD}{comment}message {message} {{\n"
        f'  option (protoflow.v1.message) = {{topic: "t" type: {quoted(type_)}}};\n'
        f"  string {field} = 1 [(protoflow.v1.field) = {{partition_key: true sensitive: true}}];\n"
        f"}}\n{comment}service {service} {{\n"
    )
    for index, rpc in enumerate(rpcs):
        text += (
            f"  {comment}  rpc {rpc}(.shop.v1.{message}) returns (.google.protobuf.Empty) {{\n"
            f'    option (protoflow.v1.consume) = {{topic: "t{index}"}};\n  }}\n'
        )
    result = answer(compile_request({"orders.proto": text + "}\n"}))
    if result.error:
        for line in result.errors:
            assert line.startswith("orders.proto:"), line
            assert "Traceback" not in line
        return
    (code,) = result.files.values()
    ast.parse(code)
    assert black.format_str(code, mode=MODE) == code
