#!/usr/bin/env bash
# docs/openapi.json is what `prover-pod openapi` prints; nobody edits it by hand.
#
#   scripts/openapi.sh write PROVER_POD   brings it up to date
#   scripts/openapi.sh check PROVER_POD   fails when it is not
set -euo pipefail
action="${1:?write or check}" prover_pod="${2:?path of prover-pod}"
cd "$(dirname "$0")/.."

fresh="$(mktemp)"
trap 'rm -f "$fresh"' EXIT
"$prover_pod" openapi >"$fresh"
case "$action" in
write)
    install -m 0644 "$fresh" docs/openapi.json
    echo "openapi: wrote docs/openapi.json"
    ;;
check)
    if ! diff -u docs/openapi.json "$fresh"; then
        echo "openapi: docs/openapi.json is not what prover-pod serves; run: make openapi" >&2
        exit 1
    fi
    ;;
*)
    echo "usage: scripts/openapi.sh write|check PROVER_POD" >&2
    exit 2
    ;;
esac
