#!/usr/bin/env bash
# Proves that helm can push a chart to the registry over plain HTTP: two versions of it come back byte for byte, one
# asked for by its version, the other as the latest, and the chart can be rendered straight from the registry.
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

install_go_tool helm helm.sh/helm/v3/cmd/helm@v3.22.0
export HELM_CACHE_HOME=$WORK/cache HELM_CONFIG_HOME=$WORK/config HELM_DATA_HOME=$WORK/share
echo "helm $(helm version --template '{{.Version}}')"
start_registry "$WORK/data"
cd "$WORK"

quiet helm create demo
for version in 0.1.0 0.2.0; do
  quiet helm package demo --version $version
  quiet helm push demo-$version.tgz "oci://$REGISTRY/charts" --plain-http
done
must_list "0.1.0 0.2.0" "$(tags charts/demo)" "tags of charts/demo"

mkdir pulled
quiet helm pull "oci://$REGISTRY/charts/demo" --version 0.1.0 --plain-http --destination pulled
quiet helm pull "oci://$REGISTRY/charts/demo" --plain-http --destination pulled
for version in 0.1.0 0.2.0; do cmp demo-$version.tgz pulled/demo-$version.tgz; done
helm template "oci://$REGISTRY/charts/demo" --version 0.2.0 --plain-http >rendered 2>>"$CLIENT_LOG"
grep -q 'kind: Deployment' rendered || fail "the pulled chart can't be rendered"
stop_registry
