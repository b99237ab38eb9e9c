#!/usr/bin/env bash
# What is generated from the operator: the definition, the chart's role and alerts, the reference, the dashboards' copy.
#
#   scripts/generated.sh write|check OPERATOR
set -euo pipefail
cd "$(dirname "$0")/.."

mode="${1:?write or check}" operator="${2:?path of the operator}"
chart=charts/upgrader-fleet/files
fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT

"$operator" generate crd >"$fresh/crd"
"$operator" generate rbac >"$fresh/rbac"
"$operator" generate alerts >"$fresh/alerts"
"$operator" generate reference >"$fresh/reference"
# Generated file and where it belongs.
pairs=(
    "$fresh/crd crds/upgraderfleets.yaml"
    "$fresh/crd $chart/upgraderfleets.yaml"
    "$fresh/rbac $chart/rbac.yaml"
    "$fresh/alerts $chart/alerts.yaml"
    "$fresh/reference docs/upgraderfleet.md"
)
for dashboard in operator/dashboards/*.json; do
    pairs+=("$dashboard $chart/dashboards/$(basename "$dashboard")")
done
status=0
for pair in "${pairs[@]}"; do
    read -r from to <<<"$pair"
    case "$mode" in
    write) mkdir -p "$(dirname "$to")" && cp "$from" "$to" ;;
    check)
        if ! cmp -s "$from" "$to"; then
            echo "generated: $to is not current; run make generate" >&2
            status=1
        fi
        ;;
    *)
        echo "usage: scripts/generated.sh write|check OPERATOR" >&2
        exit 2
        ;;
    esac
done
exit "$status"
