#!/usr/bin/env bash
# Proves that crane (of go-containerregistry) can push, pull, list, copy, tag and delete: three images that share
# layers, an index over two platforms and an artifact with a subject come back byte for byte, a copy to another
# repository too (crane mounts the blobs there), and crane itself finds each of them well formed.
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

install_go_tool crane github.com/google/go-containerregistry/cmd/crane@v0.22.1
echo "crane $(crane version)"
LAYOUT=$("$HERE/images.sh")
start_registry "$WORK/data"

pull() { # pull REPOSITORY TAG: pulls into a new layout and compares it
  local digest
  digest=$(tagged "$LAYOUT" "$2")
  rm -rf "$WORK/pulled"
  crane pull --format=oci "$REGISTRY/$1:$2" "$WORK/pulled"
  same_layout "$WORK/pulled" "$LAYOUT" "$digest"
  same_served "$1" "$2" "$LAYOUT" "$digest"
}

step "push and pull"
for tag in v1 v2 v3 multi artifact; do quiet crane push "$(single "$LAYOUT" $tag)" "$REGISTRY/library/image:$tag"; done
for tag in v1 v2 v3 multi artifact; do pull library/image $tag; done
for tag in v1 v2 v3 multi; do quiet crane validate --remote "$REGISTRY/library/image:$tag"; done
v1=$(tagged "$LAYOUT" v1)
must_list "v1 v2 v3 multi artifact$(fallback_tag "$v1")" "$(crane ls "$REGISTRY/library/image")" "crane ls"
must_list "$(tagged "$LAYOUT" artifact)" "$(listed_referrers library/image "$v1")" "referrers of v1"
if catalog=$(crane catalog "$REGISTRY" 2>/dev/null); then
  must_list library/image "$catalog" "crane catalog"
else
  echo "no catalog, which the OCI specification does not have either"
fi

step "copy, tag, delete"
for tag in v3 multi; do
  quiet crane copy "$REGISTRY/library/image:$tag" "$REGISTRY/library/copy:$tag"
  pull library/copy $tag
done
quiet crane tag "$REGISTRY/library/copy:v3" latest
want=$(tagged "$LAYOUT" v3)
must_list "$want" "$(crane digest "$REGISTRY/library/copy:latest")" "crane digest"
quiet crane delete "$REGISTRY/library/copy@$want"
! quiet crane digest "$REGISTRY/library/copy:v3" || fail "library/copy:v3 can be read after it was deleted"
pull library/copy multi
pull library/image v3
stop_registry
