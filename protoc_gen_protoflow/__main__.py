"""The command `protoc-gen-protoflow`: a plugin of protoc and buf."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import BinaryIO, TextIO

_USAGE = """\
usage: protoc --protoflow_out=DIR FILE...   (or buf generate, with local: protoc-gen-protoflow)
       protoc-gen-protoflow --version
       protoc-gen-protoflow --include             the directory to give to protoc -I
       protoc-gen-protoflow --export-protos DIR   copy the annotations, for a buf workspace
"""


def main(argv: Sequence[str], stdin: BinaryIO, stdout: BinaryIO, stderr: TextIO) -> int:
    """Runs the plugin: reads a request from stdin, writes the response to stdout.

    Args:
        argv: the arguments after the name of the program.
        stdin: the request, unless an argument asks for something else.
        stdout: the response, or the output that an argument asks for.
        stderr: errors in the arguments.

    Returns:
        The exit status.
    """
    match list(argv):
        case [] if not stdin.isatty():
            return _generate(stdin, stdout, stderr)
        case ["--version"]:
            from protoc_gen_protoflow import __version__

            stdout.write(f"protoc-gen-protoflow {__version__}\n".encode())
        case ["--include"]:
            from protoc_gen_protoflow import resources

            stdout.write(f"{resources.include()}\n".encode())
        case ["--export-protos", directory]:
            return _export(directory, stderr)
        case ["-h" | "--help"]:
            stdout.write(_USAGE.encode())
        case _:
            stderr.write(_USAGE)
            return 2
    return 0


def _generate(stdin: BinaryIO, stdout: BinaryIO, stderr: TextIO) -> int:
    from google.protobuf.message import DecodeError

    from protoc_gen_protoflow.generate import respond

    try:
        stdout.writelines(respond(stdin.read()))
    except DecodeError as error:
        stderr.write(f"stdin holds no CodeGeneratorRequest{_reason(str(error))}\n{_USAGE}")
        return 1
    return 0


def _reason(error: str) -> str:
    """Returns advice for a request that protobuf refuses to read."""
    if "UTF-8" in error:
        return " that can be read: an option holds text that is not UTF-8; save the .proto as UTF-8"
    if "depth" in error.lower():
        return " that can be read: a .proto nests messages too deeply; nest less than 90 of them"
    return ""


def _export(directory: str, stderr: TextIO) -> int:
    import shutil

    from protoc_gen_protoflow import resources

    try:
        shutil.copytree(resources.include(), directory, dirs_exist_ok=True)
    except OSError as error:
        stderr.write(f"cannot copy the annotations to {directory}: {error.strerror or error}\n")
        return 1
    return 0


def run() -> None:
    """The entry point."""
    # Almost all objects live until the end; garbage collection would take a fifth of the time.
    gc.disable()
    sys.exit(main(sys.argv[1:], sys.stdin.buffer, sys.stdout.buffer, sys.stderr))


if __name__ == "__main__":
    run()
