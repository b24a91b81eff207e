"""Payloads in protobuf's own language: protoc reads them, and they read the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc
from protoflow.asyncapi import proto_text
from protoflow.contract.catalog import Catalog

from tests.asyncapi.samples import Sampler

WELL_KNOWN = Path(protoc.__file__).parent / "_proto"


def compiled(text: str, folder: Path) -> descriptor_pool.DescriptorPool:
    (folder / "payload.proto").write_text(text, encoding="utf-8")
    target = folder / "set.binpb"
    arguments = ["protoc", f"-I{folder}", f"-I{WELL_KNOWN}", "--include_imports"]
    assert protoc.main([*arguments, f"--descriptor_set_out={target}", "payload.proto"]) == 0, text
    pool = descriptor_pool.DescriptorPool()
    for file in FileDescriptorSet.FromString(target.read_bytes()).file:
        pool.Add(file)
    return pool


def test_protoc_reads_each_payload_as_the_same_message(catalog: Catalog, tmp_path: Path) -> None:
    for spec in catalog.messages.values():
        kind: Any = spec.message_class
        text = proto_text.of(kind.DESCRIPTOR)
        pool = compiled(text, tmp_path)
        again: Any = message_factory.GetMessageClass(
            pool.FindMessageTypeByName(kind.DESCRIPTOR.full_name)
        )
        sampler = Sampler(seed=3)
        for _ in range(10):
            data = sampler.message(kind).SerializeToString()
            read = json_format.MessageToDict(again.FromString(data))
            assert str(read) == str(json_format.MessageToDict(kind.FromString(data)))


def test_everything_that_a_payload_holds_is_in_one_file(documents: dict[str, Any]) -> None:
    placed = documents["protobuf"]["components"]["messages"]["shop.v1.OrderPlaced"]
    assert placed["payload"]["schemaFormat"] == "application/vnd.google.protobuf;version=3"
    text = placed["payload"]["schema"]
    assert "// @RootNode\nmessage OrderPlaced {" in text
    assert "message kinds_v1_Everything {" in text
    assert "  .shop.v1.kinds_v1_Everything everything = 4;" in text
    assert "  .shop.v1.OrderPlaced.Line first = 5;" in text
    assert 'import "google/protobuf/any.proto";' in text
    assert "protoflow" not in text
    assert "validate" not in text


def test_proto2_keeps_its_labels(tmp_path: Path) -> None:
    text = """\
syntax = "proto2";
package old;
enum Kind { ONE = 1; ALSO_ONE = 1; option allow_alias = true; }
message Old {
  required string id = 1;
  optional Kind kind = 2 [deprecated = true];
  repeated int32 many = 3 [packed = true];
  optional group Inner = 4 { optional int32 a = 5; }
  oneof choice { string text = 6; Old old = 7; }
  map<string, Old> kinds = 8;
}
"""
    pool = compiled(text, tmp_path)
    written = proto_text.of(pool.FindMessageTypeByName("old.Old"))
    again = compiled(written, tmp_path).FindMessageTypeByName("old.Old")
    assert "required string id = 1;" in written
    assert "repeated int32 many = 3 [packed = true];" in written
    assert "// inner = 4 is a group" in written
    assert [field.name for field in again.fields] == [
        "id", "kind", "many", "text", "old", "kinds",
    ]  # fmt: skip
