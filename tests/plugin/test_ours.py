"""Options are ours where options.proto is seen, never by their number alone."""

from __future__ import annotations

import pytest

from .conftest import HEAD, Compile, Generate, answer

FOREIGN = """syntax = "proto3"; package acme; import "google/protobuf/descriptor.proto";
message Table { string name = 1; string schema = 2; Column column = 14; }
message Column { bool primary = 1; bool indexed = 2; bool last = 3; }
extend google.protobuf.FileOptions { Table all = 50771; }
extend google.protobuf.MessageOptions { Table table = 50771; }
extend google.protobuf.FieldOptions { Column column = 50771; }
extend google.protobuf.ServiceOptions { Table api = 50771; }
extend google.protobuf.MethodOptions { Table call = 50771; Column reply = 50772; }
"""
USER = """syntax = "proto3"; package acme; import "acme/opts.proto"; {imports}
import "google/protobuf/empty.proto";
option (acme.all).name = "prefix.";
message User {{
  option (acme.table) = {{name: "users" column {{primary: true}}}};
  string id = 1 [(acme.column) = {{primary: true last: true}}];
}}
service Users {{
  option (acme.api).name = "group";
  rpc Get(User) returns (User) {{ option (acme.call).name = "get"; option (acme.reply) = {{}}; }}
  rpc Put(User) returns (google.protobuf.Empty) {{ option (acme.call).schema = "put"; }}
}}
"""
OURS = 'import "protoflow/v1/options.proto";'
EVENT = 'message Event {{ option (protoflow.v1.message).topic = "event"; {} }}'


def test_options_of_others_are_not_read(generate: Generate) -> None:
    protos = {"acme/opts.proto": FOREIGN, "acme/user.proto": USER.format(imports="")}
    made = generate(protos)
    assert made.error == ""
    assert made.files == {}


def test_options_of_others_are_not_read_beside_ours(generate: Generate) -> None:
    """A file that uses ours imports one that uses theirs, and the other way round."""
    event = HEAD + 'import "acme/user.proto";' + EVENT.format("acme.User user = 1;")
    protos = {
        "acme/opts.proto": FOREIGN,
        "acme/user.proto": USER.format(imports=""),
        "event.proto": event,
        "acme/more.proto": USER.format(imports='import "event.proto";')
        .replace("package acme;", "package acme.more;")
        .replace("message User", "message More")
        .replace("(User)", "(shop.v1.Event)"),
    }
    made = generate(protos)
    assert made.error == ""
    assert list(made.files) == ["event_protoflow.py"]
    assert "sensitive" not in made.files["event_protoflow.py"]
    assert made == generate(protos, wanted=["event.proto"])


@pytest.mark.parametrize(
    ("statement", "name", "number", "options"),
    [
        ('option (acme.all).name = "x";', "all", 50771, "FileOptions"),
        ('message X { option (acme.table).name = "x"; }', "table", 50771, "MessageOptions"),
        ("message X { int32 x = 1 [(acme.column).primary = true]; }", "column", 50771, "FieldOpt"),
        ('service S { option (acme.api).name = "x"; }', "api", 50771, "ServiceOptions"),
        ("service S { rpc R(E) returns (E) { option (acme.call) = {}; } }", "call", 50771, "Meth"),
        ("service S { rpc R(E) returns (E) { option (acme.reply) = {}; } }", "reply", 50772, "Me"),
    ],
)
def test_an_option_that_may_be_either_is_reported(
    generate: Generate, statement: str, name: str, number: int, options: str
) -> None:
    text = HEAD + 'import "acme/opts.proto"; message E {}\n' + statement
    (line,) = generate({"acme/opts.proto": FOREIGN, "x.proto": text}, wanted=["x.proto"]).errors
    assert line.startswith("x.proto:7:")
    assert f"option number {number} of google.protobuf.{options}" in line
    assert f"belongs to (protoflow.v1.{OUR_NAMES[name]}) and to (acme.{name}) in" in line
    assert "acme/opts.proto" in line
    assert f"give (acme.{name}) another number, or do not import both files here" in line


OUR_NAMES = {
    "all": "file",
    "table": "message",
    "column": "field",
    "api": "service",
    "call": "consume",
    "reply": "publish",
}


def test_other_kinds_of_options_stay_ours_beside_a_clash(generate: Generate) -> None:
    foreign = """syntax = "proto3"; package acme; import "google/protobuf/descriptor.proto";
    message Column { bool primary = 1; }
    message Scope { extend google.protobuf.FieldOptions { Column column = 50771; } }
    """
    text = HEAD + 'import "acme/opts.proto";' + EVENT.format("string id = 1;")
    protos = {"acme/opts.proto": foreign, "x.proto": text}
    assert 'topic="event"' in generate(protos, wanted=["x.proto"]).only
    protos["x.proto"] = text.replace("id = 1;", "id = 1 [(acme.Scope.column).primary = true];")
    (line,) = generate(protos, wanted=["x.proto"]).errors
    assert "to (acme.Scope.column) in acme/opts.proto" in line


@pytest.mark.parametrize("imports", ['import public "{}";', 'import "{}";'])
def test_options_proto_is_seen_through_other_files(compile_request: Compile, imports: str) -> None:
    between = f'syntax = "proto3"; {imports.format("protoflow/v1/options.proto")}'
    text = HEAD.replace(OURS, 'import "between.proto"; import public "protoflow/v1/options.proto";')
    request = compile_request(
        {"between.proto": between, "x.proto": text + EVENT.format("")}, wanted=["x.proto"]
    )
    # As an image has it that drops what only the linker of protoc needs.
    (file,) = (file for file in request.proto_file if file.name == "x.proto")
    file.dependency.remove("protoflow/v1/options.proto")
    file.ClearField("public_dependency")
    assert "x_protoflow.py" in answer(request).files


def test_options_proto_under_another_path_is_reported(compile_request: Compile) -> None:
    request = compile_request("message A {}")
    for file in request.proto_file:
        if file.name == "protoflow/v1/options.proto":
            file.name = "vendor/protoflow/v1/options.proto"
        for index, path in enumerate(file.dependency):
            if path == "protoflow/v1/options.proto":
                file.dependency[index] = "vendor/protoflow/v1/options.proto"
    (line,) = answer(request).errors
    assert line.startswith("orders.proto:")
    assert 'vendor/protoflow/v1/options.proto, which is not the same file as "pro' in line
