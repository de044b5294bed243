#!/usr/bin/env bash
# Makes the images that the client scripts push, without any network, and keeps them: prints the folder of an OCI layout
# with the tags v1, v2 and v3 (each adds a layer to the one before, so layers are shared), `multi` (an index over an
# amd64 and an arm64 image) and `artifact` (an artifact of one blob whose subject is v1). The three versions are taken
# from the layout that IMAGES names, or else made here, about 16 MB in all, always with the same bytes.
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

OCI=application/vnd.oci
if [ -n "${IMAGES:-}" ]; then
  out=$CACHE/$(realpath "$IMAGES" | sha256sum | cut -c1-12)
else
  out=$CACHE/synthetic
fi
if [ -e "$out/done" ]; then echo "$out"; exit 0; fi
rm -rf "$out"
mkdir -p "$out/blobs/sha256"
echo '{"imageLayoutVersion":"1.0.0"}' >"$out/oci-layout"
echo '{"schemaVersion":2,"manifests":[]}' >"$out/index.json"

# put FILE TYPE: moves a file among the blobs and prints its descriptor.
put() {
  local size hex
  size=$(stat -c %s "$1")
  hex=$(sha256sum "$1" | cut -d' ' -f1)
  mv "$1" "$out/blobs/sha256/$hex"
  jq -cn --arg type "$2" --arg digest "sha256:$hex" --argjson size "$size" '{mediaType: $type, $digest, $size}'
}

# tag NAME DESCRIPTOR: adds a tag to the layout.
tag() {
  jq -c --arg tag "$1" --argjson descriptor "$2" \
    '.manifests += [$descriptor + {annotations: {"org.opencontainers.image.ref.name": $tag}}]' \
    "$out/index.json" >"$WORK/index.json"
  mv "$WORK/index.json" "$out/index.json"
}

# image CONFIG LAYERS: puts an image manifest with the configuration file and the JSON array of layers.
image() {
  local config
  config=$(put "$1" $OCI.image.config.v1+json)
  jq -cn --argjson config "$config" --argjson layers "$2" --arg type $OCI.image.manifest.v1+json \
    '{schemaVersion: 2, mediaType: $type, $config, $layers}' >"$WORK/manifest"
  put "$WORK/manifest" $OCI.image.manifest.v1+json
}

# layer NUMBER LINES: makes $WORK/layer.tar: a file of random numbers, a file that compresses well, a few small ones.
layer() {
  local root=$WORK/root/layer-$1
  mkdir -p "$root/small"
  awk -v seed="$1" -v lines="$2" 'BEGIN { srand(seed); for (i = 0; i < lines; i++) print int(rand() * 2^31) }' \
    >"$root/numbers"
  seq "$2" >"$root/sequence"
  for file in $(seq 20); do echo "layer $1, file $file" >"$root/small/$file"; done
  tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$WORK/root" -cf "$WORK/layer.tar" "layer-$1"
}

synthetic() {
  local version=0 layers='[]' ids='[]' lines
  for lines in 600000 300000 900000; do
    version=$((version + 1))
    layer $version $lines
    ids=$(jq -c --arg id "sha256:$(sha256sum "$WORK/layer.tar" | cut -d' ' -f1)" '. + [$id]' <<<"$ids")
    gzip -n "$WORK/layer.tar"
    layers=$(jq -c --argjson layer "$(put "$WORK/layer.tar.gz" $OCI.image.layer.v1.tar+gzip)" '. + [$layer]' \
      <<<"$layers")
    jq -cn --argjson ids "$ids" \
      '{architecture: "amd64", os: "linux", config: {}, rootfs: {type: "layers", diff_ids: $ids}}' >"$WORK/config"
    tag "v$version" "$(image "$WORK/config" "$layers")"
  done
}

given() {
  local version
  cp -a "$IMAGES/blobs/." "$out/blobs/"
  for version in v1 v2 v3; do
    tag $version "$(jq -c --arg tag $version \
      '.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == $tag) | del(.annotations)' \
      "$IMAGES/index.json")"
  done
}

if [ -n "${IMAGES:-}" ]; then given; else synthetic; fi

amd64=$(jq -c '.manifests[1] | del(.annotations) + {platform: {os: "linux", architecture: "amd64"}}' "$out/index.json")
manifest=$(blob "$out" "$(tagged "$out" v1)")
jq -c '.architecture = "arm64"' "$(blob "$out" "$(jq -r .config.digest "$manifest")")" >"$WORK/config"
arm64=$(image "$WORK/config" "$(jq -c .layers "$manifest")" \
  | jq -c '. + {platform: {os: "linux", architecture: "arm64"}}')
jq -cn --argjson amd64 "$amd64" --argjson arm64 "$arm64" --arg type $OCI.image.index.v1+json \
  '{schemaVersion: 2, mediaType: $type, manifests: [$amd64, $arm64]}' >"$WORK/multi"
tag multi "$(put "$WORK/multi" $OCI.image.index.v1+json)"

subject=$(jq -c '.manifests[0] | del(.annotations)' "$out/index.json")
printf '{}' >"$WORK/empty"
empty=$(put "$WORK/empty" $OCI.empty.v1+json)
echo 'a note about version 1' >"$WORK/note"
note=$(put "$WORK/note" text/plain)
jq -cn --argjson empty "$empty" --argjson note "$note" --argjson subject "$subject" \
  --arg type $OCI.image.manifest.v1+json '{schemaVersion: 2, mediaType: $type,
    artifactType: "application/vnd.example.note", config: $empty, layers: [$note], $subject}' >"$WORK/artifact"
tag artifact "$(put "$WORK/artifact" $OCI.image.manifest.v1+json)"

touch "$out/done"
echo "$out"
