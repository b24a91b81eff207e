"""Options are read under the extension numbers before and after the one change of numbers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from protoflow.v1 import options_pb2
from protoflow.v1.numbers import PROVISIONAL

from .conftest import HEAD, ROOT, WELL_KNOWN, Compile, Generate, answer
from .test_golden import CASES, GOLDEN, options, protos

OPTIONS = "protoflow/v1/options.proto"
NOW = options_pb2.CONSUME_FIELD_NUMBER
LEVELS = ROOT / "tests" / "gencode"


def numbered(first: int, second: int) -> str:
    """The options.proto with these numbers."""
    text = (ROOT / "proto" / OPTIONS).read_text()
    return re.sub(
        r"^(  \w+ (\w+)) = \d{4,};",
        lambda found: f"{found[1]} = {second if found[2] == 'publish' else first};",
        text,
        flags=re.M,
    )


PROVISIONAL_PROTO = numbered(50771, 50772)
#: With the registered numbers, or until they are assigned, with others in their place.
REGISTERED_PROTO = numbered(1374, 1375) if NOW == 50771 else (ROOT / "proto" / OPTIONS).read_text()
OTHER_PROTO = REGISTERED_PROTO if NOW == 50771 else PROVISIONAL_PROTO


def test_every_extension_has_a_provisional_number() -> None:
    found = re.findall(r"^  \w+ (\w+) = (\d{4,});", PROVISIONAL_PROTO, re.M)
    assert {name: int(number) for name, number in found} == PROVISIONAL
    assert set(options_pb2.DESCRIPTOR.extensions_by_name) == set(PROVISIONAL)
    assert (ROOT / "proto" / OPTIONS).read_text() != OTHER_PROTO


@pytest.mark.parametrize("case", CASES)
def test_a_request_with_other_numbers_gives_the_same(compile_request: Compile, case: str) -> None:
    root = GOLDEN / case / "proto"
    texts = {name: (root / name).read_text() for name in protos(case)}
    usual = answer(compile_request(texts, options(case)))
    names = list(texts)
    moved = compile_request({**texts, OPTIONS: OTHER_PROTO}, options(case), wanted=names)
    assert answer(moved) == usual
    assert usual.error or usual.files


FOREIGN = """syntax = "proto3"; package acme; import "google/protobuf/descriptor.proto";
extend google.protobuf.MessageOptions { string table = NUMBER; }
"""
EVENT = """import "acme/opts.proto";
message Event { option (protoflow.v1.message).topic = "event"; option (acme.table) = "x"; }
"""


@pytest.mark.parametrize(
    ("number", "clashes"), [("1374" if NOW == 50771 else "50771", True), ("60000", False)]
)
def test_a_foreign_option_clashes_under_the_number_of_the_request(
    generate: Generate, number: str, clashes: bool
) -> None:
    texts = {
        OPTIONS: OTHER_PROTO,
        "acme/opts.proto": FOREIGN.replace("NUMBER", number),
        "x.proto": HEAD + (EVENT if not clashes else EVENT.split("option (proto")[0] + "}"),
    }
    made = generate(texts, wanted=["x.proto"])
    if not clashes:
        assert 'topic="event"' in made.only
    else:
        assert made.files == {}


SWITCHED = """
import json, sys
from pathlib import Path
from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from protoc_gen_protoflow.generate import respond
from protoflow.breaking.compare import compare
from protoflow.cli.breaking.contracts import contract
from protoflow.cli.breaking.sources import Source
from protoflow.config import Config
from protoflow.v1 import options_pb2
from protoflow.web.api.policy_levels import levels
import level1.contract_pb2

images = [FileDescriptorSet.FromString(Path(name).read_bytes()) for name in sys.argv[1:]]
made = []
for image in images:
    request = plugin_pb2.CodeGeneratorRequest(
        file_to_generate=["shop/v1/orders.proto"], proto_file=image.file
    )
    made.append(b"".join(respond(request.SerializeToString())))
old, new = (contract(Source("x", image, str), Config()) for image in images)
print(json.dumps({
    "number": options_pb2.CONSUME_FIELD_NUMBER,
    "same": made[0] == made[1] and b"OrdersHandler" in made[0],
    "changes": [one.kind for one in compare(old, new, "", 1)],
    "handlers": list(old.handlers),
    "levels": levels("level1.Shapes.One"),
}))
"""


def compiled(include: Path, out: Path, *more: str) -> None:
    """Runs protoc on the orders example with an options.proto."""
    example = ROOT / "examples" / "orders" / "proto"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{include}", f"-I{example}"),
            *(f"-I{WELL_KNOWN}", f"--descriptor_set_out={out}", "--include_imports"),
            *("--include_source_info", *more, "shop/v1/orders.proto"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_after_the_switch_generator_and_runtime_read_both_numbers(tmp_path: Path) -> None:
    """The whole product with registered numbers, as docs/project/extension-number.md makes it."""
    for folder in ("runtime", "protoc_gen_protoflow", "templates", "proto"):
        skipped = shutil.ignore_patterns("__pycache__", "static")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=skipped)
    (tmp_path / "proto" / OPTIONS).write_text(REGISTERED_PROTO)
    old = tmp_path / "old" / OPTIONS
    old.parent.mkdir(parents=True)
    old.write_text(PROVISIONAL_PROTO)
    compiled(tmp_path / "old", tmp_path / "old.bin")
    out = f"--python_out={tmp_path / 'runtime'}"
    compiled(tmp_path / "proto", tmp_path / "new.bin", out, OPTIONS)

    done = subprocess.run(
        [sys.executable, "-c", SWITCHED, tmp_path / "old.bin", tmp_path / "new.bin"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path / 'runtime'}:{LEVELS}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["number"] != 50771
    assert found["same"]
    assert found["changes"] == []
    assert found["handlers"]
    # The committed contract_pb2 has the provisional numbers.
    assert found["levels"]["ordering"] == "method"
    assert found["levels"]["retry.max_attempts"] == "file"
