#!/bin/sh
# `buf breaking` of proto/ against what landed last: the newest release tag, else what
# origin/main has beneath this branch, else the commit before, else this commit.
set -eu
top=$(git rev-parse --show-toplevel 2>/dev/null || true)
if [ "$top" != "$(pwd -P)" ]; then
    echo "breaking: no git repository here, nothing to compare with"
    exit 0
fi
head=$(git rev-parse HEAD)
tag=$(git describe --tags --match 'v*' --abbrev=0 2>/dev/null || true)
landed=$(git merge-base HEAD origin/main 2>/dev/null || true)
for against in "$tag" "$landed" HEAD~1 HEAD; do
    commit=$(git rev-parse --verify --quiet "$against^{commit}" 2>/dev/null || true)
    [ -n "$commit" ] || continue
    [ "$commit" != "$head" ] || [ "$against" = HEAD ] || continue
    git cat-file -e "$commit:proto/protoflow/v1/options.proto" 2>/dev/null || continue
    old=$(mktemp -d)
    trap 'rm -rf "$old"' EXIT
    git archive "$commit" proto | tar -x -C "$old"
    cp buf.yaml "$old"
    echo "buf breaking --against $against ($(git rev-parse --short "$commit"))"
    buf breaking proto --against "$old/proto"
    exit 0
done
echo "breaking: nothing landed yet"
