#!/bin/sh
# Generates runtime/protoflow/v1/options_pb2.{py,pyi} with pinned tools, in an environment of
# their own: what grpcio-tools 1.80 makes runs on every protobuf from 6.31.1 on.
#   scripts/protos.sh            writes them
#   scripts/protos.sh --check    fails with the difference
set -eu
cd "$(dirname "$0")/.."
tools=.venv-protos
pins='grpcio-tools==1.80.1 mypy-protobuf==5.1.0 protobuf==6.33.6 setuptools<82'
if [ "$(cat $tools/.made 2>/dev/null)" != "$pins" ]; then
    rm -rf $tools
    "$(scripts/python.sh)" -m venv $tools
    # shellcheck disable=SC2086
    $tools/bin/python -m pip install --quiet $pins
    echo "$pins" >$tools/.made
fi

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
$tools/bin/python -m grpc_tools.protoc -Iproto \
    --plugin=protoc-gen-mypy=$tools/bin/protoc-gen-mypy \
    --python_out="$out" --mypy_out=quiet:"$out" protoflow/v1/options.proto
for file in options_pb2.py options_pb2.pyi; do
    if [ "${1:-}" = --check ]; then
        diff -u runtime/protoflow/v1/$file "$out/protoflow/v1/$file" || {
            echo "runtime/protoflow/v1/$file is not what proto/ says; run: make generated" >&2
            exit 1
        }
    else
        cp "$out/protoflow/v1/$file" runtime/protoflow/v1/$file
    fi
done
