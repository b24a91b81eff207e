#!/bin/sh
# All tests, in two parts. First, one at a time, those whose brokers evict or expire what does
# not answer within a second or two; then everything else at once (loadgroup hands out case by case).
cd "$(dirname "$0")/.." || exit 1
status=0
run() {
    .venv/bin/python -m pytest "$@" || [ $? -eq 5 ] || status=1
}
alone="tests/transports/test_kafka*.py tests/transports/test_rabbitmq*.py"
# shellcheck disable=SC2086
run $alone
others=""
for file in $alone; do others="$others --ignore $file"; done
# shellcheck disable=SC2086
run --numprocesses 3 --dist loadgroup --max-worker-restart 0 $others
exit $status
