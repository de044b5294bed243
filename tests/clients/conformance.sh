#!/usr/bin/env bash
# Proves that the registry conforms to version 1.1 of the OCI distribution specification: runs the specification's own
# conformance program with everything at its default, and fails if one of its tests does. Then it runs the sets that are
# off by default and those of the coming version (`dev`), and only reports those. RESULTS names the folder where the
# program's reports are left (target/conformance), one folder a run.
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

VERSION=v0.0.0-20260831232431-97274622c111
install_go_tool conformance github.com/opencontainers/distribution-spec/conformance@$VERSION
RESULTS=$(realpath -m "${RESULTS:-$TARGET/conformance}")
for setting in ${!OCI_@}; do unset "$setting"; done

count() { sed -n "s/^  $2\.\.*: *//p" "$RESULTS/$1/output"; } # count RUN STATUS

# run NAME SETTING...: runs the program against a server with no data, prints the counts; fails if a test failed.
run() {
  local name=$1
  shift
  rm -rf "${RESULTS:?}/$name"
  mkdir -p "$RESULTS/$name"
  start_registry "$WORK/$name"
  (cd "$WORK" && env OCI_REGISTRY="$REGISTRY" OCI_TLS=disabled OCI_REPO1=conformance/one OCI_REPO2=conformance/two \
    OCI_USERNAME="${LOGIN%%:*}" OCI_PASSWORD="${LOGIN#*:}" \
    OCI_LOG=error OCI_RESULTS_DIR="$RESULTS/$name" "$@" conformance) \
    >"$RESULTS/$name/output" 2>"$RESULTS/$name/errors" || true
  stop_registry
  # The program ends with success when it could not even start.
  [ -s "$RESULTS/$name/results.yaml" ] || { cat "$RESULTS/$name/errors"; fail "$name: the program did not run"; }
  printf '%-16s %4d passed, %d failed, %d errors, %d skipped, %d disabled   (%s)\n' "$name" "$(count "$name" Pass)" \
    "$(count "$name" FAIL)" "$(count "$name" Error)" "$(count "$name" Skip)" "$(count "$name" Disabled)" "$*"
  [ "$(count "$name" FAIL)" = 0 ] && [ "$(count "$name" Error)" = 0 ]
}

# failed NAME: the tests that failed, with what was wrong; not the groups that they are in.
failed() {
  awk '/^ *OCI Conformance Test.*: [A-Z][A-Za-z]*$/ {
      match($0, /^ */)
      if (test != "" && RLENGTH <= depth) print test
      test = ""; inside = 0
      if (/: (FAIL|Error)$/) { depth = RLENGTH; test = $0; gsub(/^ *OCI Conformance Test\/?/, "  ", test) }
      next
    }
    /^Configuration:/ { exit }
    test != "" { print test; test = ""; inside = 1 }
    inside { sub(/^ *-? */, "      "); print }' "$RESULTS/$1/output"
}

bad=0
run 1.1 OCI_VERSION=1.1 || bad=1
[ $bad = 0 ] || failed 1.1

step "reported only"
run dev OCI_VERSION=dev || failed dev
REGISTRY_OPTIONS=(--sparse)
run sparse OCI_VERSION=1.1 OCI_DATA_SPARSE=true || failed sparse
REGISTRY_OPTIONS=()
run upload-cancel OCI_VERSION=1.1 OCI_API_BLOBS_UPLOAD_CANCEL=true || failed upload-cancel
run tag-parameters OCI_VERSION=1.1 OCI_API_MANIFESTS_TAG_PARAM=true || failed tag-parameters
run digest-headers OCI_VERSION=1.1 OCI_API_BLOBS_DIGEST_HEADER=true OCI_API_MANIFESTS_DIGEST_HEADER=true \
  || failed digest-headers
[ $bad = 0 ] || fail "the registry does not conform to version 1.1; reports are in $RESULTS"
