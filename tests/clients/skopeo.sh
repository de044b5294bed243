#!/usr/bin/env bash
# Proves that skopeo (Debian's package) can push, pull, list and delete: three images that share layers, an index over
# two platforms and an artifact with a subject come back byte for byte, and a deleted image takes nothing along that
# others use. The same goes for an encrypted store, over a restart; without the key nothing of it is served or can be
# read in its files. Then it kills the server with SIGKILL in the middle of pushes: after a restart on the same data
# everything acknowledged before is there, the same push succeeds, and all of it comes back byte for byte.
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

install_debian skopeo skopeo
skopeo --version
LAYOUT=$("$HERE/images.sh")

copy() { skopeo --insecure-policy copy --quiet --preserve-digests "$@"; }
push() { copy --dest-tls-verify=false --all "oci:$LAYOUT:$2" "docker://$REGISTRY/$1:$2"; } # push REPOSITORY TAG
pull() { # pull REPOSITORY TAG: pulls into a new layout and compares it
  local digest
  digest=$(tagged "$LAYOUT" "$2")
  rm -rf "$WORK/pulled"
  copy --src-tls-verify=false --all "docker://$REGISTRY/$1:$2" "oci:$WORK/pulled:$2"
  same_layout "$WORK/pulled" "$LAYOUT" "$digest"
  same_served "$1" "$2" "$LAYOUT" "$digest"
}

step "push and pull"
start_registry "$WORK/data"
for tag in v1 v2 v3 multi; do push library/image $tag; done
for tag in v1 v2 v3 multi; do pull library/image $tag; done
must_list "v1 v2 v3 multi" \
  "$(skopeo list-tags --tls-verify=false "docker://$REGISTRY/library/image" | jq -r '.Tags[]')" "skopeo list-tags"

step "an artifact with a subject"
push library/image artifact
pull library/image artifact
if [ "${NO_REFERRERS:-0}" = 0 ]; then
  v1=$(tagged "$LAYOUT" v1)
  must_list "$(tagged "$LAYOUT" artifact)" "$(listed_referrers library/image "$v1")" "referrers of v1"
fi

step "delete"
push library/other v3
skopeo delete --tls-verify=false "docker://$REGISTRY/library/other:v3"
! skopeo inspect --raw --tls-verify=false "docker://$REGISTRY/library/other:v3" >/dev/null 2>&1 \
  || fail "library/other:v3 can be read after it was deleted"
pull library/image v3
stop_registry

step "an encrypted store"
head -c 32 /dev/urandom >"$WORK/key"
REGISTRY_OPTIONS=(--key-file "$WORK/key")
start_registry "$WORK/encrypted"
for tag in v1 multi; do push secret/image $tag; done
stop_registry
start_registry "$WORK/encrypted"
for tag in v1 multi; do pull secret/image $tag; done
stop_registry
REGISTRY_OPTIONS=()
! grep -rqaF -e secret/image -e application/vnd.oci "$WORK/encrypted" || fail "the store's files have plain text"
code=0
quiet timeout 20 "$REGISTRY_BIN" --data "$WORK/encrypted" --listen "127.0.0.1:$(free_port)" || code=$?
[ $code = 1 ] || fail "without its key, the encrypted store was served: the exit code is $code"

step "SIGKILL in the middle of a push"
start_registry "$WORK/timed"
begun=$(date +%s%N)
push kill/image v3
took=$((($(date +%s%N) - begun) / 1000000))
stop_registry
seed=${SEED:-$RANDOM}
echo "seed $seed; a whole push takes $took ms"
RANDOM=$seed
interrupted=0
for round in $(seq 20); do
  data=$WORK/killed-$round
  start_registry "$data"
  push kill/image v1
  push kill/image v3 2>>"$CLIENT_LOG" &
  client=$!
  sleep "$(printf '%d.%03d' $((after = RANDOM % took, after / 1000)) $((after % 1000)))"
  kill_registry
  acknowledged=1
  wait "$client" || acknowledged=0
  interrupted=$((interrupted + 1 - acknowledged))
  start_registry "$data"
  pull kill/image v1
  if [ $acknowledged = 1 ] || tags kill/image | grep -qx v3; then pull kill/image v3; fi
  push kill/image v3
  pull kill/image v3
  stop_registry
  rm -rf "$data"
  [ $interrupted -lt 4 ] || break
done
[ $interrupted -ge 4 ] || fail "only $interrupted of $round kills interrupted a push"
echo "$interrupted of $round kills interrupted the push"
