#!/usr/bin/env bash
# Proves that the registry serves the clients people use: runs the script of each client and the conformance program,
# one after the other, or only those named, and prints one line for each: ok, SKIPPED with the reason, or FAILED with
# the end of its log. Fails if one failed. LOGS names the folder of the logs (target/clients). soak.sh is run by itself.
#
#   tests/clients/run.sh [skopeo|crane|oras|regctl|podman|helm|distribution|conformance|ecr|ecr-api]...
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
LOGS=${LOGS:-${CARGO_TARGET_DIR:-$HERE/../../target}/clients}
mkdir -p "$LOGS"
[ $# -gt 0 ] || set -- skopeo crane oras regctl podman helm distribution conformance ecr ecr-api

passed=0 failed=0 skipped=0
for name; do
  begun=$SECONDS
  if ! "$HERE/$name.sh" >"$LOGS/$name.log" 2>&1; then
    printf '%-12s FAILED after %d s; the end of %s:\n' "$name" $((SECONDS - begun)) "$LOGS/$name.log"
    tail -n 25 "$LOGS/$name.log" | sed 's/^/    /'
    failed=$((failed + 1))
  elif reason=$(grep '^SKIPPED: ' "$LOGS/$name.log"); then
    printf '%-12s %s\n' "$name" "$reason"
    skipped=$((skipped + 1))
  else
    printf '%-12s ok, %d s\n' "$name" $((SECONDS - begun))
    passed=$((passed + 1))
  fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
