#!/bin/sh
# Prints the path of a Python >= 3.11 that can make virtual environments.
set -eu
check='import sys, ensurepip, venv; assert sys.version_info >= (3, 11); print(sys.executable)'
for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
    if path=$("$candidate" -c "$check" 2>/dev/null); then
        echo "$path"
        exit 0
    fi
done
echo "no Python >= 3.11 with venv was found; install one, or run: make PYTHON=/path/to/python3.11" >&2
exit 1
