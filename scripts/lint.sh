#!/bin/sh
# Every check, also after one that fails. Run by `make lint`, with the tools on PATH.
cd "$(dirname "$0")/.." || exit 1
status=0
check() {
    echo "$*"
    "$@" || status=1
}
no_conflict_markers() {
    ! git grep --line-number --extended-regexp '^(<{7}|>{7}) '
}
check ruff check --quiet .
check ruff format --check --quiet .
check mypy protoc_gen_protoflow runtime/protoflow scripts tests
check pyright --warnings
check lint-imports --no-logo
check python scripts/sizes.py
check python scripts/words.py
check buf lint
check buf format --diff --exit-code
check scripts/breaking.sh
check scripts/protos.sh --check
check no_conflict_markers
exit $status
