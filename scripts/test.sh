#!/bin/sh
# All tests, in two parts. First, one at a time for each broker, those whose brokers evict or expire
# what does not answer within a second or two: they wait most of the time, each for its own broker.
# Tests without a broker use the processors meanwhile, at a low priority. Then everything else
# at once (loadgroup hands out case by case).
#
# Tests kill processes and brokers and wait for what happens then, so on a loaded machine one may
# run out of patience because of what runs beside it. Those that failed are run once more, by
# themselves: a fault fails again. More than a few are no accident, and are not run again.
cd "$(dirname "$0")/.." || exit 1
status=0
most_again=15

# run NAME: the tests are $files, the options for running at once $at_once, the priority $priority.
run() {
    # shellcheck disable=SC2086
    $priority .venv/bin/python -m pytest -o cache_dir=".pytest_cache/$1" $at_once $files
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
without="asyncapi codecs config contract middleware packaging parity plugin publishing realworld
    registrations routing runtime scheduling simulation stats transport typing"
others="" pids="" priority=""
mkdir -p .pytest_cache
# begin NAME: runs the tests $files beside others.
begin() {
    for file in $files; do others="$others --ignore $file"; done
    (run "$1"; exit $status) >".pytest_cache/$1.txt" 2>&1 &
    pids="$pids $!"
}
for name in $alone; do
    at_once="" files="tests/transports/$name"
    begin "$name"
done
at_once="--numprocesses 2 --dist loadgroup --max-worker-restart 0" priority="nice -n 10" files=""
for name in $without; do files="$files tests/$name"; done
begin without
# A run that is ended takes these with it.
trap 'kill $pids 2>/dev/null; exit 143' INT TERM
for pid in $pids; do wait "$pid" || status=1; done
trap - INT TERM
for name in $alone without; do cat ".pytest_cache/$name.txt"; done
at_once="--numprocesses 3 --dist loadgroup --max-worker-restart 0" priority="" files=$others
run others
exit $status
