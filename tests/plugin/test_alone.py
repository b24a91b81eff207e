"""What a file becomes depends on it and its imports alone, however a build splits its requests."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from google.protobuf.compiler import plugin_pb2

from .conftest import HEAD, Compile, Generated, answer

GROUP = 'option (protoflow.v1.service).consumer_group = "g";'
RPC = "rpc R({}) returns (google.protobuf.Empty) {{ option (protoflow.v1.consume) = {{ {} }}; }}"
BASE = HEAD.replace("shop.v1;", "base;") + (
    'message A { option (protoflow.v1.message).topic = "a";'
    "  string id = 1 [(protoflow.v1.field).partition_key = true]; }"
    'message B { option (protoflow.v1.message).topic = "a"; string id = 1; }'
)


def user(package: str, message: str, options: str = "", service: str = "") -> str:
    return (
        f'{HEAD.replace("shop.v1;", f"{package};")} import "base.proto";'
        f"service S {{ {GROUP} {service} {RPC.format(message, options)} }}"
    )


def two(first: str, second: str) -> dict[str, str]:
    return {"base.proto": BASE, "a.proto": first, "b.proto": second}


KEY = "delivery: {ordering: ORDERING_PER_KEY concurrency: 4 atomic: true}"
# One subscription over two files, in every way that such files can differ.
SPLIT: dict[str, Mapping[str, str]] = {
    "alike": two(user("a", "base.A"), user("b", "base.B")),
    "one says more": two(user("a", "base.A"), user("b", "base.B", "delivery: {concurrency: 2}")),
    "levels": two(
        user("a", "base.B", service="option (protoflow.v1.service).delivery.concurrency = 5;"),
        user("b", "base.A", "delivery: {concurrency: 2}"),
    ),
    "a key elsewhere": two(user("a", "base.A"), user("b", "base.B", KEY)),
    "a key here": two(user("a", "base.B"), user("b", "base.A", KEY)),
    "contradiction": two(
        user("a", "base.A", "delivery: {atomic: true}"),
        user("b", "base.B", "delivery: {atomic: false}"),
    ),
    "broadcast": two(user("a", "base.A", "broadcast: true"), user("b", "base.B")),
    "one type twice": two(user("a", "base.A"), user("b", "base.A")),
    "dead letters go round": two(
        user("a", "base.A", 'topic: "x" delivery: {dead_letter: {topic: "y"}}'),
        user("b", "base.A", 'topic: "y" delivery: {dead_letter: {topic: "x"}}'),
    ),
    "a mistake in a base": {
        **two(user("a", "base.A"), user("b", "base.B")),
        "base.proto": BASE.replace('B { option (protoflow.v1.message).topic = "a"', 'B { option '
        '(protoflow.v1.message).topic = "a b"'),
    },
}  # fmt: skip


def pieces(request: plugin_pb2.CodeGeneratorRequest) -> list[Generated]:
    """Each file by itself, in a request that holds its imports and nothing else, as buf does."""
    files = {file.name: file for file in request.proto_file}
    found: list[Generated] = []
    for name in request.file_to_generate:
        needed, waiting = set[str](), [name]
        while waiting:
            path = waiting.pop()
            if path not in needed:
                needed.add(path)
                waiting += files[path].dependency
        alone = [file for file in request.proto_file if file.name in needed]
        found.append(
            answer(plugin_pb2.CodeGeneratorRequest(file_to_generate=[name], proto_file=alone))
        )
    return found


@pytest.mark.parametrize("case", SPLIT)
def test_together_and_apart(compile_request: Compile, case: str) -> None:
    request = compile_request(SPLIT[case])
    together = answer(request)
    apart = pieces(request)
    assert together.errors == sorted({line for piece in apart for line in piece.errors})
    if not together.error:
        assert together.files == {
            name: text for piece in apart for name, text in piece.files.items()
        }


@pytest.mark.parametrize("case", SPLIT)
def test_in_any_order(compile_request: Compile, case: str) -> None:
    request = compile_request(SPLIT[case])
    expected = answer(request)
    for seed in range(4):
        shuffled = plugin_pb2.CodeGeneratorRequest.FromString(request.SerializeToString())
        files, wanted = list(shuffled.proto_file), list(shuffled.file_to_generate)
        random.Random(seed).shuffle(files)
        random.Random(seed).shuffle(wanted)
        del shuffled.proto_file[:], shuffled.file_to_generate[:]
        shuffled.proto_file.extend(files)
        shuffled.file_to_generate.extend(wanted)
        assert answer(shuffled) == expected


def test_a_key_must_be_in_the_same_file(compile_request: Compile) -> None:
    (line,) = answer(compile_request(SPLIT["a key elsewhere"])).errors
    assert line.startswith("b.proto:6:")
    assert "b.S.R: ordering is per key, but base.B has no key" in line
