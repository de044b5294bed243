#!/usr/bin/env bash
# Proves that space comes back while everything goes on: clients (skopeo, Debian's package) push images, each its own
# tags, and delete them again, while the server collects in the background and is killed with SIGKILL again and again.
# After every restart each tag must name the manifest that was acknowledged last, or be gone where that was, or what was
# under way when the server was killed; and all that it names must be there. In the end, when nobody pushes any more,
# the disk must hold little more than what the tags name.
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
base_layer "$LAYOUT"
REGISTRY_OPTIONS=(--retention 10s --collect-every 2s)
mkdir "$WORK/records"
echo "seed $SEED, $MINUTES minutes, $CLIENTS clients, in $WORK"

# --- a client ------------------------------------------------------------------------------------------------------

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
      new_image "$dir/image" 256 $((RANDOM % 3 == 0 ? 12000 : 1500))
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

# may_name: for each tag the digests that it may name, or "gone": what was acknowledged last, and what was tried since.
may_name() {
  cat "$WORK"/records/* | awk '$1 == "try" { may[$2] = (($2 in may) ? may[$2] : "gone") " " $3 }
    $1 == "ack" { may[$2] = $3 } $1 == "is" { may[$2] = $3 }
    END { for (tag in may) print tag, may[tag] }' | sort
}

# check: each tag, and all that it names. What was under way and what came of it is recorded: from then on it is known.
check() {
  local name may found manifest url line
  : >"$WORK/named"
  while read -r name may; do
    manifest=$WORK/manifest
    url=http://$REGISTRY/v2/${name%:*}/manifests/${name#*:}
    case $(curl -s -o "$manifest" -w '%{http_code}' -H "$ACCEPT" "$url") in
      200) found=sha256:$(sha256sum "$manifest" | cut -d' ' -f1) ;;
      404) found=gone ;;
      *) wrong "$name can't be read" ;;
    esac
    [[ " $may " = *" $found "* ]] || wrong "$name is $found, not one of: $may"
    line=${name#gc/}
    if [ "$found" = gone ]; then echo "is $name gone 0"; else echo "ack $name $found 0"; fi >>"$WORK/records/${line%:*}"
    [ "$found" = gone ] \
      || jq -r --arg in "${name%:*}" '(.config, .layers[]) | "\($in) \(.digest) \(.size)"' "$manifest" >>"$WORK/named"
  done < <(may_name)
  sed -E "s|^([^ ]*) ([^ ]*) (.*)|200 \\3 http://$REGISTRY/v2/\\1/blobs/\\2|" "$WORK/named" | sort -u >"$WORK/heads"
  sed -E 's|.* (.*)|url = "\1"\noutput = "/dev/null"|' "$WORK/heads" >"$WORK/curl"
  curl -s -I -w '%{http_code} %header{content-length} %{url_effective}\n' -K "$WORK/curl" \
    | tr -d '\r' | sort >"$WORK/answers" || true
  found=$(comm -23 "$WORK/heads" "$WORK/answers")
  [ -z "$found" ] || wrong "named by a tag, but not there with this size: $found"
  checks=$((checks + 1))
  [ ! -s "$WORK/errors" ] || wrong "$(head -n 20 "$WORK/errors")"
}

# A file that goes while it is counted is no failure.
used() { { du -s --apparent-size --block-size=1 "$WORK/data" 2>/dev/null || true; } | cut -f1; }

checks=0 most=0
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

pushed=$(cat "$WORK"/records/* | awk '$1 == "ack" { sum += $4 } END { printf "%.0f", sum }')
live=$(cut -d' ' -f2- "$WORK/named" | sort -u | awk '{ sum += $2 } END { printf "%.0f", sum }')
# Besides what lives, and a quarter of it: log files that are kept for events, the one in use, what is reserved, the
# names.
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
pushes=$(count '^ack .*sha256:.* [1-9]') deletes=$(count '^ack .* gone')
echo "$kills kills; $pushes pushes of $((pushed / 1048576)) MiB, $deletes deletes; $checks checks"
echo "used: at most $((most / 1048576)) MiB, $((after / 1048576)) in the end, of which $((live / 1048576)) live"
