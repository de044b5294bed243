#!/usr/bin/env bash
# Proves that regctl (of regclient) can push and pull: three images that share layers, an index over two platforms and
# an artifact with a subject come back byte for byte; artifacts attached to an image are listed back and come along when
# the image is copied with its referrers; a tag deleted by itself leaves the image.
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

install_go_tool regctl github.com/regclient/regclient/cmd/regctl@v0.11.7
echo "regctl $(regctl version --format '{{.VCSTag}}')"
LAYOUT=$("$HERE/images.sh")
start_registry "$WORK/data"
image=$REGISTRY/library/image
export REGCTL_CONFIG=$WORK/regctl.json
regctl registry set --tls disabled "$REGISTRY"

step "push and pull"
for tag in v1 v2 v3 multi artifact; do quiet regctl image copy "ocidir://$LAYOUT:$tag" "$image:$tag"; done
for tag in v1 v2 v3 multi artifact; do
  digest=$(tagged "$LAYOUT" $tag)
  rm -rf "$WORK/pulled"
  quiet regctl image copy "$image:$tag" "ocidir://$WORK/pulled:$tag"
  same_layout "$WORK/pulled" "$LAYOUT" "$digest"
  same_served library/image $tag "$LAYOUT" "$digest"
done
v1=$(tagged "$LAYOUT" v1)
must_list "v1 v2 v3 multi artifact$(fallback_tag "$v1")" "$(regctl tag ls "$image")" "regctl tag ls"

step "artifacts with a subject"
head -c 3000000 /dev/urandom >"$WORK/signature"
quiet regctl artifact put --artifact-type application/vnd.example.signature --subject "$image:v3" <"$WORK/signature"
attached() { regctl artifact list --format '{{range .Descriptors}}{{println .Digest}}{{end}}' "$1"; }
v3=$(tagged "$LAYOUT" v3)
signature=$(listed_referrers library/image "$v3" application/vnd.example.signature)
must_list "$signature" "$(attached "$image:v3")" "regctl artifact list of v3"
must_list "$(tagged "$LAYOUT" artifact)" "$(attached "$image:v1")" "regctl artifact list of v1"
must_list "$(tagged "$LAYOUT" artifact)" "$(listed_referrers library/image "$v1")" "referrers of v1"
regctl artifact get --subject "$image:v3" --filter-artifact-type application/vnd.example.signature >"$WORK/got"
cmp "$WORK/signature" "$WORK/got"

step "copy with referrers"
quiet regctl image copy --referrers "$image:v3" "$REGISTRY/library/copy:v3"
must_list "$signature" "$(attached "$REGISTRY/library/copy:v3")" "regctl artifact list of the copy"
same_served library/copy v3 "$LAYOUT" "$v3"

step "delete"
regctl tag delete "$image:v2"
[ "$(tags library/image | grep -cx v2)" = 0 ] || fail "v2 is listed after it was deleted"
same_served library/image v3 "$LAYOUT" "$v3"
stop_registry
