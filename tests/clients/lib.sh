# shellcheck shell=bash
# What the client scripts share: starting, stopping and killing a registry, installing a client, and comparing what a
# registry or a client gives back with the OCI layout that was pushed. A script sources this file first; its working
# folder is $WORK, and whatever it started is stopped when it exits.
#
# REGISTRY_BIN  the server, called as `$REGISTRY_BIN --data DIR --listen 127.0.0.1:PORT`; by default our own example
# IMAGES        an OCI layout with the tags v1 v2 v3 to test with; by default small images are made
# CACHE         where images are kept (target/images)
# TOOLS         where clients built with Go are kept (target/tools)
# AUTH=1        the server has users, and clients log in as one of them, who may do everything;
#               AUTH=bearer: and are asked for bearer tokens, not for passwords
# NO_REFERRERS=1  the server is older than version 1.1 and has no referrers API; for trying the scripts elsewhere
# KEEP=1        keep $WORK
set -euo pipefail
export LC_ALL=C

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
TARGET=$(realpath -m "${CARGO_TARGET_DIR:-$ROOT/target}")
REGISTRY_BIN=${REGISTRY_BIN:-$TARGET/release/registry}
CACHE=${CACHE:-$TARGET/images}
TOOLS=${TOOLS:-$TARGET/tools}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/clients.XXXXXX")
CLIENT_LOG=$WORK/client.log
REGISTRY_LOG=$WORK/registry.log
REGISTRY_OPTIONS=()
AUTH_OPTIONS=()
REGISTRY_PID=
REGISTRY=
LOGIN= # with AUTH=1, the access key that clients log in with, as id:secret

step() { echo "-- $*"; }
skip() { echo "SKIPPED: $*"; exit 0; }
fail() { echo "FAILED: $*" >&2; exit 1; }
curl() { command curl ${LOGIN:+--user "$LOGIN"} "$@"; }
quiet() { "$@" >>"$CLIENT_LOG" 2>&1; } # quiet COMMAND...: what it prints is shown only if the script fails

cleanup() { :; } # a script may define its own
at_exit() {
  local code=$? log
  trap - EXIT
  [ -z "$REGISTRY_PID" ] || kill_registry
  cleanup
  if [ "$code" -ne 0 ]; then
    for log in "$REGISTRY_LOG" "$CLIENT_LOG"; do
      [ ! -s "$log" ] || { echo "-- the end of $(basename "$log"):"; tail -n 8 "$log"; } >&2
    done
  fi
  [ "${KEEP:-0}" = 1 ] || rm -rf "$WORK"
  exit "$code"
}
trap at_exit EXIT
trap 'exit 130' INT TERM

# --- clients -------------------------------------------------------------------------------------------------------

# install_debian COMMAND PACKAGE: has Debian's package of a command, or skips the script.
install_debian() {
  ! command -v "$1" >/dev/null || return 0
  { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || skip "$1 is not installed"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2"; } \
    >"$WORK/apt.log" 2>&1 || skip "$1 can't be installed: $(tail -n 1 "$WORK/apt.log")"
}

# install_go_tool NAME PACKAGE@VERSION: has $TOOLS/NAME of exactly that version, or skips the script.
install_go_tool() {
  local stamp=$TOOLS/$1.version
  mkdir -p "$TOOLS"
  PATH=$TOOLS:$PATH
  [ -x "$TOOLS/$1" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$2" ] && return
  command -v go >/dev/null || skip "$1 needs Go to be built"
  GOBIN=$TOOLS GOFLAGS=-buildvcs=false go install "$2" >"$WORK/go.log" 2>&1 \
    || skip "$1 can't be built: $(tail -n 1 "$WORK/go.log")"
  echo "$2" >"$stamp"
}

install_debian curl curl
install_debian jq jq

# --- the server ----------------------------------------------------------------------------------------------------

# free_port: a port nobody listens on, below those that the kernel gives to outgoing connections.
free_port() {
  local port
  while port=$((20000 + RANDOM % 12000)); (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

# launch_registry DIR PORT: starts the server and doesn't wait for it.
launch_registry() {
  if [ ! -x "$REGISTRY_BIN" ]; then
    [ "$REGISTRY_BIN" = "$TARGET/release/registry" ] || fail "$REGISTRY_BIN: no such program"
    step "building the registry"
    (cd "$ROOT" && cargo build --quiet --release -p strongroom-registry)
  fi
  REGISTRY=127.0.0.1:$2
  [ "${AUTH:-0}" = 0 ] || log_in
  "$REGISTRY_BIN" --data "$1" --listen "$REGISTRY" "${REGISTRY_OPTIONS[@]}" "${AUTH_OPTIONS[@]}" \
    >>"$REGISTRY_LOG" 2>&1 &
  REGISTRY_PID=$!
}

# add_user FILE NAME [OPTION]...: adds a user to a file of credentials; prints the user's access key as id:secret.
add_user() {
  "$REGISTRY_BIN" user add "$2" --credentials "$1" --json "${@:3}" | jq -r '"\(.accessKeyId):\(.secretAccessKey)"'
}

# log_in: has the server take users, and clients log in as one who may do everything.
log_in() {
  if [ -z "$LOGIN" ]; then
    LOGIN=$(add_user "$WORK/credentials.json" client --policy AdministratorAccess)
  fi
  AUTH_OPTIONS=(--credentials "$WORK/credentials.json")
  [ "$AUTH" != bearer ] || AUTH_OPTIONS+=(--url "http://$REGISTRY")
  mkdir -p "$WORK/docker"
  export DOCKER_CONFIG=$WORK/docker REGISTRY_AUTH_FILE=$WORK/docker/config.json
  jq -n --arg at "$REGISTRY" --arg login "$(printf %s "$LOGIN" | base64 -w 0)" '{auths: {($at): {auth: $login}}}' \
    >"$REGISTRY_AUTH_FILE"
}

# start_registry DIR [PORT]: starts the server and waits until it answers; sets REGISTRY and REGISTRY_PID.
start_registry() {
  launch_registry "$1" "${2:-$(free_port)}"
  local end=$((SECONDS + 60))
  until [ "$(curl -s -o "$WORK/null" -w '%{http_code}' "http://$REGISTRY/v2/")" = 200 ]; do
    kill -0 "$REGISTRY_PID" 2>/dev/null || { REGISTRY_PID=; fail "the server ended before it answered"; }
    [ "$SECONDS" -lt "$end" ] || fail "the server did not answer within 60 s"
    sleep 0.05
  done
}

kill_registry() {
  kill -9 "$REGISTRY_PID" 2>/dev/null || true
  wait "$REGISTRY_PID" 2>/dev/null || true
  REGISTRY_PID=
}

# stop_registry: asks the server to end, as an operator would; it must do so with success.
stop_registry() {
  local code=0
  kill "$REGISTRY_PID"
  wait "$REGISTRY_PID" || code=$?
  REGISTRY_PID=
  [ "$code" = 0 ] || fail "the server exited with $code on SIGTERM"
}

# --- comparing -----------------------------------------------------------------------------------------------------

blob() { echo "$1/blobs/${2/://}"; } # blob LAYOUT DIGEST: the file

# tagged LAYOUT TAG: the digest that a tag names in a layout.
tagged() {
  local digest
  digest=$(jq -r --arg tag "$2" \
    '.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == $tag) | .digest' "$1/index.json")
  [ -n "$digest" ] || fail "$1 has no tag $2"
  echo "$digest"
}

# single LAYOUT TAG: prints a layout with that tag alone, for clients that push whole layouts.
single() {
  local dir=$WORK/single/$2
  mkdir -p "$dir"
  ln -sfn "$1/blobs" "$dir/blobs"
  cp "$1/oci-layout" "$dir/"
  jq -c --arg tag "$2" '.manifests |= map(select(.annotations["org.opencontainers.image.ref.name"] == $tag))' \
    "$1/index.json" >"$dir/index.json"
  echo "$dir"
}

# reachable LAYOUT DIGEST: a manifest and all that it refers to but its subject, as lines "manifests|blobs DIGEST".
reachable() {
  local file children child
  file=$(blob "$1" "$2")
  [ -e "$file" ] || fail "$1 lacks $2"
  echo "manifests $2"
  jq -r '(.config // empty, .layers[]?) | "blobs \(.digest)"' "$file"
  children=$(jq -r '.manifests[]?.digest' "$file")
  for child in $children; do reachable "$1" "$child"; done
}

# same_layout GOT WANT DIGEST: all that is reachable from the manifest is in the layout GOT, byte for byte as in WANT.
same_layout() {
  local digest
  reachable "$2" "$3" | sort -u >"$WORK/reachable"
  while read -r _ digest; do
    cmp "$(blob "$1" "$digest")" "$(blob "$2" "$digest")" || fail "$digest was pulled with other bytes"
  done <"$WORK/reachable"
}

ACCEPT='Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json'

# get REPOSITORY KIND REFERENCE FILE: reads a manifest or blob into a file.
get() {
  mkdir -p "$(dirname "$4")"
  curl -sSf -H "$ACCEPT" -o "$4" "http://$REGISTRY/v2/$1/$2/$3" || fail "$1: $3 can't be read"
}

# same_served REPOSITORY REFERENCE LAYOUT DIGEST: the server gives the manifest for the reference, and by its digest all
# that is reachable from it, byte for byte as in the layout. Asks with curl: what a client verifies or repairs itself
# doesn't count.
same_served() {
  local kind digest
  get "$1" manifests "$2" "$WORK/served"
  cmp "$WORK/served" "$(blob "$3" "$4")" || fail "$1:$2 names another manifest than $4"
  reachable "$3" "$4" | sort -u >"$WORK/reachable"
  while read -r kind digest; do
    get "$1" "$kind" "$digest" "$WORK/served"
    cmp "$WORK/served" "$(blob "$3" "$digest")" || fail "$1: $digest is served with other bytes"
  done <"$WORK/reachable"
}

# get_whole REPOSITORY DIGEST LAYOUT: reads a manifest and all that is reachable from it into a layout; each must have
# the digest that it is named by.
get_whole() {
  local manifest digest blobs children child
  manifest=$(blob "$3" "$2")
  get "$1" manifests "$2" "$manifest"
  blobs=$(jq -r '(.config // empty, .layers[]?) | .digest' "$manifest")
  for digest in $blobs; do get "$1" blobs "$digest" "$(blob "$3" "$digest")"; done
  children=$(jq -r '.manifests[]?.digest' "$manifest")
  for child in $children; do get_whole "$1" "$child" "$3"; done
  reachable "$3" "$2" | while read -r _ digest; do
    echo "${digest#*:}  $(blob "$3" "$digest")"
  done | sha256sum --check --quiet || fail "$1: $2 is served with other bytes"
}

# listed_referrers REPOSITORY DIGEST [TYPE]: the digests that the referrers API lists for a subject. Registries older
# than version 1.1 have no such API: with NO_REFERRERS=1 the tag that clients then use instead is read.
listed_referrers() {
  local url=http://$REGISTRY/v2/$1/referrers/$2${3:+?artifactType=$3}
  [ "${NO_REFERRERS:-0}" = 0 ] || url=http://$REGISTRY/v2/$1/manifests/${2/:/-}
  curl -sSf -H 'Accept: application/vnd.oci.image.index.v1+json' "$url" | jq -r '.manifests[].digest'
}

# fallback_tag DIGEST: what that tag adds to a list of tags.
fallback_tag() { [ "${NO_REFERRERS:-0}" = 0 ] || echo " ${1/:/-}"; }

# must_list WANT GOT WHAT: the two lists have the same members.
must_list() {
  [ "$(tr ' ' '\n' <<<"$1" | sort)" = "$(tr ' ' '\n' <<<"$2" | sort)" ] \
    || fail "$3: expected $(tr '\n' ' ' <<<"$1"), found $(tr '\n' ' ' <<<"$2")"
}

# tags REPOSITORY: the tags that the server lists.
tags() { curl -sSf "http://$REGISTRY/v2/$1/tags/list" | jq -r '.tags[]'; }

# --- a server that is killed while clients are at work -------------------------------------------------------------

wrong() { KEEP=1; fail "$* ($WORK is kept)"; }

# base_layer LAYOUT: takes the first layer of its v1 as the one that all new images share.
base_layer() {
  local config
  config=$(blob "$1" "$(tagged "$1" v1)")
  BASE=$(jq -c '.layers[0]' "$config")
  BASE_ID=$(jq -r .digest <<<"$BASE")
  BASE_DIFF_ID=$(jq -r '.rootfs.diff_ids[0]' "$(blob "$1" "$(jq -r .config.digest "$config")")")
  BASE_FILE=$WORK/${BASE_ID#*:}
  cp "$(blob "$1" "$BASE_ID")" "$BASE_FILE"
}

# store LAYOUT FILE: moves a file among the blobs; sets STORED and SIZE.
store() {
  SIZE=$(stat -c %s "$2")
  STORED=$(sha256sum "$2")
  STORED=${STORED%% *}
  mv "$2" "$1/blobs/sha256/$STORED"
}

# new_image LAYOUT KIB...: makes an image that nobody has, with the tag `it`: the layer that all share, and for each
# number one of random bytes, up to so many KiB. Sets STORED to the hexadecimal digest of its manifest.
new_image() {
  local dir=$1 layers=$BASE diff_ids="\"$BASE_DIFF_ID\"" most type=application/vnd.oci.image
  shift
  mkdir -p "$dir/blobs/sha256"
  ln "$BASE_FILE" "$dir/blobs/sha256/"
  for most in "$@"; do
    head -c $((RANDOM % most * 1024 + RANDOM % 1024 + 1)) /dev/urandom >"$dir/new"
    store "$dir" "$dir/new"
    layers+=$(printf ',{"mediaType":"%s.layer.v1.tar","digest":"sha256:%s","size":%d}' $type "$STORED" "$SIZE")
    diff_ids+=",\"sha256:$STORED\""
  done
  printf '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%s]}}' "$diff_ids" >"$dir/new"
  store "$dir" "$dir/new"
  printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":{"mediaType":"%s.config.v1+json",
    "digest":"sha256:%s","size":%d},"layers":[%s]}' $type $type "$STORED" "$SIZE" "$layers" >"$dir/new"
  store "$dir" "$dir/new"
  printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s.manifest.v1+json","digest":"sha256:%s","size":%d,
    "annotations":{"org.opencontainers.image.ref.name":"it"}}]}' $type "$STORED" "$SIZE" >"$dir/index.json"
  echo '{"imageLayoutVersion":"1.0.0"}' >"$dir/oci-layout"
}

# attempt DIR COMMAND...: runs a request; that it fails is an error only if the server ran all the time.
attempt() {
  local dir=$1 before
  shift
  before=$(<"$WORK/state")
  "$@" >"$dir/output" 2>&1 && return
  [[ $before = up* && $(<"$WORK/state") = "$before" ]] || return 1
  { echo "failed though the server ran: $*"; tail -n 5 "$dir/output"; } >>"$WORK/errors"
  return 1
}

kills=0
hold() { touch "$WORK/hold"; flock -x 9; } # what is under way is waited for, and nothing new begun
release() { rm -f "$WORK/hold"; flock -u 9; }
# shellcheck disable=SC2153 # the script sets PORT
up() { start_registry "$WORK/data" "$PORT"; echo "up $kills" >"$WORK/state"; }
down() { echo "down $kills" >"$WORK/state"; } # before the server is killed, so that clients know why they fail
