"""CPU of generating code, protoc included: `... protoflow|mypy|python|pyi FILES`.

Each file has five messages and a service of four rpcs that all consume, and imports the file
before it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

FILE = """\
syntax = "proto3";

package shop.n{n}.v1;

import "google/protobuf/empty.proto";
import "protoflow/v1/options.proto";
{previous}
{messages}
// Handles the orders of shop {n}.
service Orders{n} {{
  option (protoflow.v1.service) = {{
    consumer_group: "billing-{n}"
    delivery: {{ retry: {{ max_attempts: 5 }} }}
  }};
{methods}}}
"""
MESSAGE = """\
// An event of kind {m}.
message Event{m} {{
  option (protoflow.v1.message).topic = "shop.{n}.event{m}";
  // What orders them.
  string id = 1 [(protoflow.v1.field).partition_key = true];
  int64 cents = 2;
  repeated string notes = 3;
{link}}}

"""
METHOD = """\
  // Handles events of kind {m}.
  rpc HandleEvent{m}(Event{m}) returns ({output}) {{
    option (protoflow.v1.consume) = {{ delivery: {{ ordering: ORDERING_PER_KEY }} }};
{publish}  }}
"""


def write(directory: Path, files: int) -> list[str]:
    """Writes the .proto files; their paths."""
    paths: list[str] = []
    for n in range(files):
        previous = f'import "shop/n{n - 1}/v1/orders.proto";\n' if n else ""
        link = f"  shop.n{n - 1}.v1.Event0 cause = 4;\n" if n else ""
        messages = "".join(MESSAGE.format(n=n, m=m, link="" if m else link) for m in range(5))
        methods = "".join(
            METHOD.format(
                m=m,
                output="Event4" if m % 2 else "google.protobuf.Empty",
                publish="    option (protoflow.v1.publish) = {};\n" if m % 2 else "",
            )
            for m in range(4)
        )
        text = FILE.format(n=n, previous=previous, messages=messages, methods=methods)
        path = directory / f"shop/n{n}/v1/orders.proto"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        paths.append(str(path.relative_to(directory)))
    return paths


def generate(directory: Path, plugin: str, paths: list[str]) -> dict[str, float]:
    """CPU and wall milliseconds of protoc and the plugin."""
    found = []
    if plugin in ("protoflow", "mypy"):
        found = [f"--plugin=protoc-gen-{plugin}={BIN}/protoc-gen-{plugin}"]
    with tempfile.TemporaryDirectory() as out:
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc", f"-I{directory}", f"-I{ROOT}/proto"),
                *found,
                f"--{plugin}_out={out}",
                *paths,
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_ms": 1000 * cpu, "wall_ms": 1000 * (end - start)}


def main(plugin: str, files: int) -> None:
    """Measures once; a first file, not counted, makes the plugin's bytecode."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paths = write(directory, files)
        generate(directory, plugin, paths[:1])
        print(json.dumps(generate(directory, plugin, paths)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
