#!/usr/bin/env bash
# Proves that what CNCF distribution (registry:3) has stored is imported: images that share layers, an index over two
# platforms, an artifact with a subject, Docker manifests, untagged manifests and nested repositories are pushed to it
# with skopeo, its storage directory is imported while it runs and once more after more was pushed, and the example
# registry serves the same bytes under the same digests. Unfinished uploads and deleted manifests are left out.
#
# STRONGROOM_BIN  the command; by default it is built
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

install_debian skopeo skopeo
install_go_tool registry github.com/distribution/distribution/v3/cmd/registry@v3.0.0
STRONGROOM_BIN=${STRONGROOM_BIN:-$TARGET/release/strongroom}
if [ ! -x "$STRONGROOM_BIN" ]; then
  step "building the command"
  (cd "$ROOT" && cargo build --quiet --release --features cli --bin strongroom)
fi
LAYOUT=$("$HERE/images.sh")
OLD=127.0.0.1:$(free_port)
OLD_PID=
cleanup() { [ -z "$OLD_PID" ] || kill "$OLD_PID" 2>/dev/null || true; }

copy() { quiet skopeo --insecure-policy copy --dest-tls-verify=false "$@"; }
push() { copy --preserve-digests --all "oci:$LAYOUT:$2" "docker://$OLD/$1:${3:-$2}"; } # push REPOSITORY TAG [AS]
manifest_of() { # manifest_of REPOSITORY TAG: the digest that the old registry says a tag names
  curl -sSfI -H "$ACCEPT, application/vnd.docker.distribution.manifest.v2+json" "http://$OLD/v2/$1/manifests/$2" \
    | tr -d '\r' | awk 'tolower($1) == "docker-content-digest:" { print $2 }'
}
import() { "$STRONGROOM_BIN" --data "$WORK/data" --json import --from distribution "$WORK/old" >"$WORK/report"; }
reported() { # reported EXPRESSION WANT: what the last import has said
  local got
  got=$(jq -c "$1" "$WORK/report")
  [ "$got" = "$2" ] || fail "$1 is $got, not $2: $(cat "$WORK/report")"
}

step "push to distribution"
cat >"$WORK/config.yml" <<EOF
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $WORK/old}, delete: {enabled: true}}
http: {addr: $OLD}
EOF
OTEL_TRACES_EXPORTER=none "$TOOLS/registry" serve "$WORK/config.yml" >>"$CLIENT_LOG" 2>&1 &
OLD_PID=$!
until curl -sf -o "$WORK/null" "http://$OLD/v2/"; do
  kill -0 "$OLD_PID" 2>/dev/null || fail "distribution has ended"
  sleep 0.1
done
for tag in v1 v2 multi artifact; do push library/image $tag; done
push library/image/nested v1
push moved v1 moving
push moved v2 moving # v1 has no tag any more
copy --format v2s2 "oci:$LAYOUT:v1" "docker://$OLD/docker/image:v1"
docker=$(manifest_of docker/image v1)
push deleted v1
curl -sSf -X DELETE "http://$OLD/v2/deleted/manifests/$(tagged "$LAYOUT" v1)"
location=$(curl -sSf -X POST -D - "http://$OLD/v2/library/image/blobs/uploads/" | tr -d '\r' \
  | awk 'tolower($1) == "location:" { print $2 }')
curl -sSf -X PATCH -H 'Content-Type: application/octet-stream' -H 'Content-Range: 0-4' --data-binary 'begun' "$location"

step "import while it runs"
quiet "$STRONGROOM_BIN" --data "$WORK/data" init
import
reported '[.repositories, .uploads, .skipped_count]' '[5,1,0]'
reported '.manifests' '{"existing":0,"new":9}'
reported '.tags' '{"existing":0,"new":7}'

step "push more, stop it, and import again"
push library/image v3
push library/image v1 v2 # a tag that moves
kill "$OLD_PID"
wait "$OLD_PID" 2>/dev/null || true
OLD_PID=
import
reported '[.manifests.new, .manifests.existing, .tags.new, .tags.existing, .skipped_count]' '[1,9,2,6,0]'
import
reported '[.blobs.new, .manifests.new, .tags.new]' '[0,0,0]'

step "the same is served"
start_registry "$WORK/data"
for tag in v1 v3 multi artifact; do same_served library/image $tag "$LAYOUT" "$(tagged "$LAYOUT" $tag)"; done
same_served library/image v2 "$LAYOUT" "$(tagged "$LAYOUT" v1)"
same_served library/image/nested v1 "$LAYOUT" "$(tagged "$LAYOUT" v1)"
same_served moved moving "$LAYOUT" "$(tagged "$LAYOUT" v2)"
for tag in v1 v2; do
  digest=$(tagged "$LAYOUT" $tag)
  same_served moved "$digest" "$LAYOUT" "$digest"
done
must_list "v1 v2 v3 multi artifact" "$(tags library/image)" "the tags"
must_list "$(tagged "$LAYOUT" artifact)" "$(listed_referrers library/image "$(tagged "$LAYOUT" v1)")" "referrers of v1"
code=$(curl -s -o "$WORK/null" -w '%{http_code}' -H "$ACCEPT" "http://$REGISTRY/v2/deleted/manifests/v1")
[ "$code" = 404 ] || fail "what was deleted is served: $code"
type='Accept: application/vnd.docker.distribution.manifest.v2+json'
[ "$(curl -sSf -H "$type" "http://$REGISTRY/v2/docker/image/manifests/v1" | sha256sum | cut -d' ' -f1)" = \
  "${docker#sha256:}" ] || fail "the Docker manifest is served with other bytes"
copy --src-tls-verify=false --all "docker://$REGISTRY/docker/image:v1" "oci:$WORK/pulled:v1"
copy --src-tls-verify=false --all "docker://$REGISTRY/library/image:multi" "oci:$WORK/multi:multi"
same_layout "$WORK/multi" "$LAYOUT" "$(tagged "$LAYOUT" multi)"
stop_registry

step "export, and import the layout into another repository"
"$STRONGROOM_BIN" --data "$WORK/data" --json export --all "$WORK/all" >"$WORK/report"
reported '.skipped_count' 0
same_layout "$WORK/all/repositories/library+image" "$LAYOUT" "$(tagged "$LAYOUT" multi)"
copy --all "oci:$WORK/all/repositories/library+image:multi" "oci:$WORK/again:multi"
quiet "$STRONGROOM_BIN" --data "$WORK/data" import --repository library/copy "$WORK/all/repositories/library+image"
quiet "$STRONGROOM_BIN" --data "$WORK/data" verify
start_registry "$WORK/data"
for tag in v1 v3 multi artifact; do same_served library/copy $tag "$LAYOUT" "$(tagged "$LAYOUT" $tag)"; done
stop_registry
