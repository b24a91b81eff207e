#!/bin/sh
# All tests, in two parts. First, one at a time for each broker, those whose brokers evict or expire
# what does not answer within a second or two: they wait most of the time, each for its own broker.
# Then everything else at once (loadgroup hands out case by case).
#
# Tests kill processes and brokers and wait for what happens then, so on a loaded machine one may
# run out of patience because of what runs beside it. Those that failed are run once more, by
# themselves: a fault fails again. More than a few are no accident, and are not run again.
cd "$(dirname "$0")/.." || exit 1
status=0
most_again=15

# run NAME ARGUMENTS...: the options for running at once come from $at_once.
run() {
    # shellcheck disable=SC2086
    .venv/bin/python -m pytest -o cache_dir=".pytest_cache/$1" $at_once $files
    code=$?
    [ $code -eq 5 ] && return
    if [ $code -eq 1 ]; then
        failed=$(grep -c '::' ".pytest_cache/$1/v/cache/lastfailed" 2>/dev/null || echo 99)
        if [ "$failed" -le $most_again ]; then
            echo "run again, by themselves: $failed"
            # shellcheck disable=SC2086
            .venv/bin/python -m pytest -o cache_dir=".pytest_cache/$1" --last-failed \
                --last-failed-no-failures none $files
            code=$?
        fi
    fi
    [ $code -eq 0 ] || [ $code -eq 5 ] || status=1
}

alone="kafka rabbitmq"
others="" pids=""
mkdir -p .pytest_cache
for name in $alone; do
    at_once="" files="tests/transports/$name"
    others="$others --ignore $files"
    (run "$name"; exit $status) >".pytest_cache/$name.txt" 2>&1 &
    pids="$pids $!"
done
# A run that is ended takes these with it.
trap 'kill $pids 2>/dev/null; exit 143' INT TERM
for pid in $pids; do wait "$pid" || status=1; done
trap - INT TERM
for name in $alone; do cat ".pytest_cache/$name.txt"; done
at_once="--numprocesses 3 --dist loadgroup --max-worker-restart 0" files=$others
run others
exit $status
