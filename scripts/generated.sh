#!/bin/sh
# Writes every generated file that is committed. Run by `make generated`, with the tools on PATH.
set -eu
cd "$(dirname "$0")/.."
scripts/protos.sh
python -m protoc_gen_protoflow.compile_templates
python -m pytest --quiet tests/plugin/test_golden.py -k protoc --update-golden
git --no-pager diff --stat -- runtime/protoflow/v1 protoc_gen_protoflow/compiled.py tests/golden
