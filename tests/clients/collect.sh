#!/usr/bin/env bash
# Proves that space comes back while everything goes on: clients (skopeo, Debian's package) push images, each its own tags, and
# delete them again, while the server collects in the background and is killed with SIGKILL again and again. After every restart each
# tag must name the manifest that was acknowledged last, or be gone where that was, or what was under way when the server was killed; and all that it names
# must be there. In the end, when nobody pushes any more, the disk must hold little more than what the tags name.
#
#   tests/clients/collect.sh [MINUTES [SECONDS [CLIENTS]]]     60 minutes, killed every 60 seconds, 4 clients
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

MINUTES=${1:-60}
EVERY=${2:-60}
CLIENTS=${3:-4}
SEED=${SEED:-$RANDOM}
install_debian skopeo skopeo
LAYOUT=$("$HERE/images.sh")
V1=$(blob "$LAYOUT" "$(tagged "$LAYOUT" v1)")
BASE=$(jq -c '.layers[0]' "$V1")
BASE_ID=$(jq -r .digest <<<"$BASE")
BASE_DIFF_ID=$(jq -r '.rootfs.diff_ids[0]' "$(blob "$LAYOUT" "$(jq -r .config.digest "$V1")")")
BASE_FILE=$WORK/base
cp "$(blob "$LAYOUT" "$BASE_ID")" "$BASE_FILE"
REGISTRY_OPTIONS=(--retention 10 --collect-every 2)
mkdir "$WORK/records"
echo "seed $SEED, $MINUTES minutes, $CLIENTS clients, in $WORK"

wrong() { KEEP=1; fail "$* ($WORK is kept)"; }

# --- a client ------------------------------------------------------------------------------------------------------

# store LAYOUT FILE: moves a file among the blobs; sets STORED and SIZE.
store() {
  SIZE=$(stat -c %s "$2")
  STORED=$(sha256sum "$2")
  STORED=${STORED%% *}
  mv "$2" "$1/blobs/sha256/$STORED"
}

# new_image LAYOUT: a layer that all share, and two of random bytes, small or large. Sets STORED to the digest of its manifest.
new_image() {
  local dir=$1 layers=$BASE diff_ids="\"$BASE_DIFF_ID\"" most type=application/vnd.oci.image
  mkdir -p "$dir/blobs/sha256"
  ln "$BASE_FILE" "$dir/blobs/sha256/${BASE_ID#*:}"
  for most in 256 $((RANDOM % 3 == 0 ? 12000 : 1500)); do
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

client() { # client NUMBER: records lines "try|ack REPOSITORY:TAG DIGEST|gone BYTES"
  local dir=$WORK/client-$1 name may
  RANDOM=$((SEED + $1))
  mkdir "$dir"
  exec 9>"$WORK/lock"
  while [ -e "$WORK/running" ]; do
    if [ -e "$WORK/hold" ] || [[ $(<"$WORK/state") != up* ]]; then sleep 0.2; continue; fi
    flock -s 9
    name=gc/$1:t$((RANDOM % 4))
    may=$(tail -n 1 <(grep -F " $name " "$WORK/records/$1" 2>/dev/null))
    if [[ $may = ack\ *\ sha256:* ]]; then
      # A tag that is there goes before it is used again: so what no tag names is nobody's.
      echo "try $name gone 0" >>"$WORK/records/$1"
      if attempt "$dir" skopeo delete --tls-verify=false "docker://$REGISTRY/$name"; then
        echo "ack $name gone 0" >>"$WORK/records/$1"
      else
        echo "lost $name" >>"$WORK/records/$1"
      fi
    elif [[ $may != lost* ]]; then
      rm -rf "$dir/image"
      new_image "$dir/image"
      echo "try $name sha256:$STORED 0" >>"$WORK/records/$1"
      if attempt "$dir" skopeo --insecure-policy copy --quiet --preserve-digests --dest-tls-verify=false \
        "oci:$dir/image:it" "docker://$REGISTRY/$name"; then
        echo "ack $name sha256:$STORED $(du -sb "$dir/image" | cut -f1)" >>"$WORK/records/$1"
      else
        echo "lost $name" >>"$WORK/records/$1"
      fi
    fi
    flock -u 9
  done
}

# --- the server and the checks -------------------------------------------------------------------------------------

hold() { touch "$WORK/hold"; flock -x 9; }
release() { rm -f "$WORK/hold"; flock -u 9; }
up() { start_registry "$WORK/data" "$PORT"; echo "up $kills" >"$WORK/state"; }
down() { echo "down $kills" >"$WORK/state"; } # before the server is killed, so that clients know why they fail

# may_name: for each tag the digests that it may name, or "gone": what was acknowledged last, and what was tried since.
may_name() {
  cat "$WORK"/records/* | awk '$1 == "try" { may[$2] = (($2 in may) ? may[$2] : "gone") " " $3 }
    $1 == "ack" { may[$2] = $3 } $1 == "is" { may[$2] = $3 }
    END { for (tag in may) print tag, may[tag] }' | sort
}

# check: each tag, and all that it names. What was under way and what came of it is recorded: from then on it is known.
check() {
  local name may found manifest line
  : >"$WORK/named"
  while read -r name may; do
    manifest=$WORK/manifest
    case $(curl -s -o "$manifest" -w '%{http_code}' -H "$ACCEPT" "http://$REGISTRY/v2/${name%:*}/manifests/${name#*:}") in
      200) found=sha256:$(sha256sum "$manifest" | cut -d' ' -f1) ;;
      404) found=gone ;;
      *) wrong "$name can't be read" ;;
    esac
    [[ " $may " = *" $found "* ]] || wrong "$name is $found, not one of: $may"
    line=${name#gc/}
    if [ "$found" = gone ]; then echo "is $name gone 0"; else echo "ack $name $found 0"; fi >>"$WORK/records/${line%:*}"
    [ "$found" = gone ] || jq -r --arg in "${name%:*}" '(.config, .layers[]) | "\($in) \(.digest) \(.size)"' "$manifest" >>"$WORK/named"
  done < <(may_name)
  sed -E "s|^([^ ]*) ([^ ]*) (.*)|200 \\3 http://$REGISTRY/v2/\\1/blobs/\\2|" "$WORK/named" | sort -u >"$WORK/heads"
  sed -E 's|.* (.*)|url = "\1"\noutput = "/dev/null"|' "$WORK/heads" >"$WORK/curl"
  curl -s -I -w '%{http_code} %header{content-length} %{url_effective}\n' -K "$WORK/curl" | tr -d '\r' | sort >"$WORK/answers" || true
  found=$(comm -23 "$WORK/heads" "$WORK/answers")
  [ -z "$found" ] || wrong "named by a tag, but not there with this size: $found"
  checks=$((checks + 1))
  [ ! -s "$WORK/errors" ] || wrong "$(head -n 20 "$WORK/errors")"
}

used() { du -s --apparent-size --block-size=1 "$WORK/data" | cut -f1; }

kills=0 checks=0 most=0
RANDOM=$SEED
PORT=$(free_port)
touch "$WORK/running"
exec 9>"$WORK/lock"
up
clients=()
cleanup() { rm -f "$WORK/running" "$WORK/hold"; [ ${#clients[@]} = 0 ] || wait "${clients[@]}" || true; }
for number in $(seq "$CLIENTS"); do
  : >"$WORK/records/$number"
  client "$number" &
  clients+=($!)
done
end=$((SECONDS + MINUTES * 60))
while [ $SECONDS -lt $end ]; do
  sleep "$EVERY"
  now=$(used)
  [ "$now" -le "$most" ] || most=$now
  kills=$((kills + 1))
  down
  kill_registry
  up
  hold
  check
  release
  for pid in "${clients[@]}"; do kill -0 "$pid" 2>/dev/null || wrong "a client ended"; done
done
hold
check
rm "$WORK/running"
release
wait "${clients[@]}"
check

pushed=$(cat "$WORK"/records/* | awk '$1 == "ack" { sum += $4 } END { printf "%d", sum }')
live=$(cut -d' ' -f2- "$WORK/named" | sort -u | awk '{ sum += $2 } END { printf "%d", sum }')
# Besides what lives, and a quarter of it: log files that are kept for events, the one in use, what is reserved, the names.
allowed=$((live * 5 / 4 + (64 + 64 + 8 + 8) * 1048576))
until [ "$(used)" -le "$allowed" ]; do
  [ $((tries = ${tries:-0} + 1)) -lt 60 ] || wrong "$(used) bytes are used, $live live"
  sleep 2
done
after=$(used)
stop_registry
up
check
stop_registry
count() { cat "$WORK"/records/* | grep -c "$1" || true; }
echo "$kills kills; $(count '^ack .*sha256:.* [1-9]') pushes of $((pushed / 1048576)) MiB, $(count '^ack .* gone') deletes; $checks checks"
echo "used: at most $((most / 1048576)) MiB, $((after / 1048576)) in the end, of which $((live / 1048576)) live"
