#!/usr/bin/env bash
# Proves that oras can push and pull: three images that share layers, an index over two platforms and an artifact with a
# subject come back byte for byte; files attached to an image are discovered by type, and come back byte for byte.
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

install_go_tool oras oras.land/oras/cmd/oras@v1.3.6
oras version | sed -n 1p
LAYOUT=$("$HERE/images.sh")
start_registry "$WORK/data"
image=$REGISTRY/library/image
cd "$WORK"

step "push and pull"
for tag in v1 v2 v3 multi artifact; do
  quiet oras copy --no-tty --from-oci-layout "$LAYOUT:$tag" --to-plain-http "$image:$tag"
done
for tag in v1 v2 v3 multi artifact; do
  digest=$(tagged "$LAYOUT" $tag)
  rm -rf pulled
  quiet oras copy --no-tty --from-plain-http "$image:$tag" --to-oci-layout "pulled:$tag"
  same_layout pulled "$LAYOUT" "$digest"
  same_served library/image $tag "$LAYOUT" "$digest"
done
v1=$(tagged "$LAYOUT" v1)
must_list "v1 v2 v3 multi artifact$(fallback_tag "$v1")" "$(oras repo tags --plain-http "$image")" "oras repo tags"

step "attach and discover"
echo '{"bom": true}' >bom.json
head -c 3000000 /dev/urandom >signature
attach() { # attach TYPE FILE: attaches a file to v3 and prints the digest of the artifact
  oras attach --no-tty --plain-http --artifact-type "$1" --format json "$image:v3" "$2" | jq -r .digest
}
discover() { # discover [OPTION...]: the digests of what refers to v3
  oras discover --plain-http --format json --depth 1 "$@" "$image:v3" | jq -r '(.referrers // .manifests)[].digest'
}
bom=$(attach application/vnd.example.bom bom.json)
signature=$(attach application/vnd.example.signature signature)
v3=$(tagged "$LAYOUT" v3)
must_list "$bom $signature" "$(discover)" "oras discover"
must_list "$bom" "$(discover --artifact-type application/vnd.example.bom)" "oras discover of one type"
must_list "$bom $signature" "$(listed_referrers library/image "$v3")" "referrers of v3"
must_list "$(tagged "$LAYOUT" artifact)" "$(listed_referrers library/image "$v1")" "referrers of v1"
quiet oras pull --no-tty --plain-http --output attached "$image@$signature"
cmp signature attached/signature

step "delete"
quiet oras manifest delete --plain-http --force "$image@$bom"
must_list "$signature" "$(discover)" "oras discover after a delete"
stop_registry
