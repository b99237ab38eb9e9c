#!/usr/bin/env bash
# docs/openapi.json is what `prover-pod openapi` prints, docs/api.md the same for people; nobody edits them by hand.
#
#   scripts/openapi.sh write PROVER_POD   brings them up to date
#   scripts/openapi.sh check PROVER_POD   fails when they are not
set -euo pipefail
action="${1:?write or check}" prover_pod="${2:?path of prover-pod}"
cd "$(dirname "$0")/.."

fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT
"$prover_pod" openapi >"$fresh/openapi.json"
scripts/api-docs.py "$fresh/openapi.json" >"$fresh/api.md"
case "$action" in
write)
    for name in openapi.json api.md; do
        install -m 0644 "$fresh/$name" "docs/$name"
        echo "openapi: wrote docs/$name"
    done
    ;;
check)
    for name in openapi.json api.md; do
        if ! diff -u "docs/$name" "$fresh/$name"; then
            echo "openapi: docs/$name is not what prover-pod serves; run: make openapi" >&2
            exit 1
        fi
    done
    echo "openapi: docs/openapi.json and docs/api.md are what prover-pod serves"
    ;;
*)
    echo "usage: scripts/openapi.sh write|check PROVER_POD" >&2
    exit 2
    ;;
esac
