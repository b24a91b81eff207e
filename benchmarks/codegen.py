"""CPU of generating 1, 100 and 500 files against mypy-protobuf, protoc included.

Run as `python benchmarks/codegen.py [FILES...]`. Each file has five messages and a service
of four rpcs that all consume, and imports the file before it.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
RUNS = 5
# An installed plugin has its bytecode; a checkout gets it in the run that is not counted.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
TARGETS = {1: 1.2, 100: 1.0, 500: 1.0}

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


def cpu(directory: Path, plugin: str, paths: list[str]) -> float:
    """CPU milliseconds of protoc and the plugin."""
    with tempfile.TemporaryDirectory() as out:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc", f"-I{directory}", f"-I{ROOT}/proto"),
                f"--plugin=protoc-gen-{plugin}={BIN}/protoc-gen-{plugin}",
                f"--{plugin}_out={out}",
                *paths,
            ],
            check=True,
            capture_output=True,
            env=ENVIRONMENT,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    """Measures in turn, so that a busy machine slows both alike."""
    print(f"{'files':>5} {'protoflow':>10} {'mypy-protobuf':>14} {'ratio':>6} {'target':>7}")
    for files in [int(text) for text in sys.argv[1:]] or list(TARGETS):
        with tempfile.TemporaryDirectory() as name:
            paths = write(Path(name), files)
            cpu(Path(name), "protoflow", paths)
            runs = [
                (cpu(Path(name), "protoflow", paths), cpu(Path(name), "mypy", paths))
                for _ in range(RUNS)
            ]
        mine, other = (statistics.median(times) for times in zip(*runs, strict=True))
        target = TARGETS.get(files, 1.0)
        print(f"{files:>5} {mine:>7.0f} ms {other:>11.0f} ms {mine / other:>6.2f} {target:>7.1f}")


if __name__ == "__main__":
    main()
