#!/usr/bin/env bash
# Proves that the registry keeps what it acknowledged, whenever it is killed: clients (crane) push and pull images at
# the same time, each its own tags, in repositories of their own and in one that all share, while the server is killed
# with SIGKILL at random moments, now and then while it starts too, and started again. Each client records what it tries
# to push and what was acknowledged. After every restart the clients are held, and each tag must name the manifest that
# was acknowledged last, or one that the client tried to push after it without an answer; all that any tag names must be
# there, with its size; and a sample is read whole and must have the digests that it is named by. No request may fail
# while the server runs. On a failure the folder with the data and the records is kept. Writes a few GB.
#
#   tests/clients/soak.sh [MINUTES [CLIENTS]]     20 minutes and 8 clients; SEED repeats the random choices
# shellcheck disable=SC2016 # dollars in single quotes are jq's
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

MINUTES=${1:-20}
CLIENTS=${2:-8}
SEED=${SEED:-$RANDOM}
install_go_tool crane github.com/google/go-containerregistry/cmd/crane@v0.22.1
LAYOUT=$("$HERE/images.sh")
base_layer "$LAYOUT"
for tag in v1 v2 v3 multi; do single "$LAYOUT" $tag >/dev/null; done
mkdir "$WORK/records"
echo "seed $SEED, $MINUTES minutes, $CLIENTS clients, in $WORK"

pause_ms() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }

# --- a client ------------------------------------------------------------------------------------------------------

push() { # push DIR REPOSITORY TAG: pushes a known image or a new one, and records it
  local layout digest most
  rm -rf "$1/image"
  case $((RANDOM % 8)) in
    0) layout=$WORK/single/v$((RANDOM % 3 + 1)) ;;
    1) layout=$WORK/single/multi ;;
    *)
      layout=$1/image most=256 # KiB: mostly small
      [ $((RANDOM % 4)) -gt 0 ] || most=2048
      [ $((RANDOM % 20)) -gt 0 ] || most=16384
      new_image "$layout" $most
      ;;
  esac
  digest=$(grep -o 'sha256:[0-9a-f]*' "$layout/index.json")
  echo "try $2:$3 $digest" >>"$RECORD"
  if attempt "$1" crane push "$layout" "$REGISTRY/soak/$2:$3"; then
    echo "ack $2:$3 $digest" >>"$RECORD"
  else
    echo "unknown $2:$3 $digest" >>"$RECORD"
  fi
}

pull() { # pull DIR REPOSITORY TAG: pulls a tag that was acknowledged before, and checks every byte
  local digest
  grep -q "^ack $2:$3 " "$RECORD" || return 0
  rm -rf "$1/pulled"
  attempt "$1" crane pull --format=oci "$REGISTRY/soak/$2:$3" "$1/pulled" || return 0
  digest=$(grep -o 'sha256:[0-9a-f]*' "$1/pulled/index.json" | head -n 1)
  expected "$RECORD" | grep -qx "$2:$3 $digest" || echo "$2:$3 was pulled as $digest" >>"$WORK/errors"
  (cd "$1/pulled/blobs/sha256" && for file in *; do echo "$file  $file"; done | sha256sum --check --quiet) \
    >>"$WORK/errors" 2>&1 || echo "$2:$3 was pulled with other bytes" >>"$WORK/errors"
  echo "pull $2:$3 $digest" >>"$RECORD"
}

# expected RECORD...: for each tag the digests that it may name, as lines "REPOSITORY:TAG DIGEST", and a line "… none"
# where it may be missing: the last one acknowledged and those tried after it.
expected() {
  awk '$1 == "try" { if (!($2 in may)) may[$2] = "none"; may[$2] = may[$2] " " $3 }
    $1 == "ack" { may[$2] = $3 }
    END { for (tag in may) { n = split(may[tag], all, " "); for (i = 1; i <= n; i++) print tag, all[i] } }' "$@"
}

client() { # client NUMBER
  local dir=$WORK/client-$1 repository tag
  RANDOM=$((SEED + $1))
  RECORD=$WORK/records/$1
  mkdir "$dir"
  exec 9>"$WORK/lock"
  while [ -e "$WORK/running" ]; do
    if [ -e "$WORK/hold" ] || [[ $(<"$WORK/state") != up* ]]; then sleep 0.2; continue; fi
    flock -s 9
    repository=shared
    [ $((RANDOM % 2)) = 0 ] || repository=$1-$((RANDOM % 4))
    tag=c$1-$((RANDOM % 3))
    push "$dir" "$repository" "$tag"
    [ $((RANDOM % 2)) = 0 ] || pull "$dir" "$repository" "$tag"
    flock -u 9
  done
}

# --- the server and the checks -------------------------------------------------------------------------------------

# read_all KIND: reads lines "REPOSITORY:REFERENCE" and gets what the API has under REPOSITORY/KIND/REFERENCE as files
# with the line's name in $WORK/read, all with one curl; prints what is answered neither with 200 nor with 404.
read_all() {
  rm -rf "$WORK/read"
  mkdir "$WORK/read"
  sed -E "s|^([^:]*):(.*)|url = \"http://$REGISTRY/v2/soak/\\1/$1/\\2\"\noutput = \"$WORK/read/&\"|" >"$WORK/curl"
  curl -s -f -H "$ACCEPT" -w '%{http_code} %{url_effective}\n' -K "$WORK/curl" | grep -v -E '^(200|404) ' || true
}

# each PROGRAM: runs jq on all that was read, with the repository as $repository.
each() { jq -r '(input_filename | sub(".*/"; "") | sub(":.*"; "")) as $repository | '"$1" "$WORK"/read/* | sort -u; }

# named: what the manifests that were read refer to, as lines "REPOSITORY KIND DIGEST SIZE".
named() {
  each '((.config // empty, .layers[]?) + {kind: "blobs"}, .manifests[]? + {kind: "manifests"})
    | "\($repository) \(.kind) \(.digest) \(.size)"'
}

# check SAMPLE: the promises above, with the clients held. The sample is that many tags read whole.
check() {
  local sample=$1 reference digest bad
  cat "$WORK"/records/* >"$WORK/record"
  expected "$WORK/record" | sort >"$WORK/expected"
  cut -d' ' -f1 "$WORK/expected" | sort -u >"$WORK/tags"

  bad=$(read_all manifests <"$WORK/tags")
  [ -z "$bad" ] || wrong "$bad"
  (cd "$WORK/read" && find . -type f -exec sha256sum {} + | sed -E 's|^([0-9a-f]*)  ./(.*)|\2 sha256:\1|') | sort \
    >"$WORK/found"
  cut -d' ' -f1 "$WORK/found" | comm -23 "$WORK/tags" - | sed 's/$/ none/' | sort - "$WORK/found" >"$WORK/all"
  bad=$(comm -23 "$WORK/all" "$WORK/expected")
  [ -z "$bad" ] || wrong "not what was acknowledged: $bad"

  if [ -s "$WORK/found" ]; then
    named >"$WORK/named"
    sed -n -E 's/^([^ ]*) manifests ([^ ]*) .*/\1:\2/p' "$WORK/named" | read_all manifests
    [ -z "$(ls "$WORK/read")" ] || named >>"$WORK/named"
    sed -E "s|^([^ ]*) ([^ ]*) ([^ ]*) (.*)|200 \\4 http://$REGISTRY/v2/soak/\\1/\\2/\\3|" "$WORK/named" | sort -u \
      >"$WORK/heads"
    sed -E 's|.* (.*)|url = "\1"\noutput = "/dev/null"|' "$WORK/heads" >"$WORK/curl"
    curl -s -I -H "$ACCEPT" -w '%{http_code} %header{content-length} %{url_effective}\n' -K "$WORK/curl" \
      | tr -d '\r' | sort >"$WORK/answers"
    bad=$(comm -23 "$WORK/heads" "$WORK/answers")
    [ -z "$bad" ] || wrong "named by a tag, but not there with this size: $bad"
    named=$((named + $(wc -l <"$WORK/heads")))

    cut -d: -f1 "$WORK/found" | sort -u | sed 's/$/:list/' | read_all tags
    each '.tags[] | "\($repository):\(.)"' >"$WORK/listed"
    bad=$(cut -d' ' -f1 "$WORK/found" | diff "$WORK/listed" -) \
      || wrong "tags listed (<) and tags that resolve (>): $bad"
  fi

  while read -r reference digest; do
    rm -rf "$WORK/whole"
    (get_whole "soak/${reference%%:*}" "$digest" "$WORK/whole") || wrong "$reference, $digest can't be read whole"
    wholes=$((wholes + 1))
  done < <(shuf -n "$sample" "$WORK/found")

  checks=$((checks + 1))
  tags_checked=$((tags_checked + $(wc -l <"$WORK/all")))
  [ ! -s "$WORK/errors" ] || wrong "$(head -n 20 "$WORK/errors")"
}

early=0 checks=0 tags_checked=0 named=0 wholes=0
RANDOM=$SEED
PORT=$(free_port)
touch "$WORK/running"
exec 9>"$WORK/lock"
up
clients=()
cleanup() { rm -f "$WORK/running" "$WORK/hold"; [ ${#clients[@]} = 0 ] || wait "${clients[@]}" || true; }
for number in $(seq "$CLIENTS"); do
  client "$number" &
  clients+=($!)
done

end=$((SECONDS + MINUTES * 60))
while [ $SECONDS -lt $end ]; do
  pause_ms $((RANDOM % 5000 + 200))
  kills=$((kills + 1))
  down
  kill_registry
  if [ $((RANDOM % 4)) = 0 ]; then
    launch_registry "$WORK/data" "$PORT"
    pause_ms $((RANDOM % 300))
    kill_registry
    early=$((early + 1))
  fi
  if [ $((RANDOM % 2)) = 0 ]; then hold; up; else up; hold; fi # sometimes with the clients at the door
  check 3
  release
  for pid in "${clients[@]}"; do kill -0 "$pid" 2>/dev/null || wrong "a client ended"; done
  [ "$(df --output=avail -k "$WORK" | tail -n 1)" -gt 4000000 ] || { echo "the disk is nearly full"; break; }
done

hold
down
stop_registry
up
check 40
release
rm "$WORK/running"
wait "${clients[@]}"
stop_registry
count() { grep -c "^$1 " "$WORK/record" || true; }
echo "$kills kills while serving, $early more while starting"
echo "$(count ack) pushes acknowledged, $(count unknown) without an answer, $(count pull) pulls by clients"
echo "$checks checks: $tags_checked tags resolved, $named blobs and manifests that they name found, $wholes read whole"
