#!/usr/bin/env bash
# Proves that podman (Debian's package, without a daemon) can push, pull and build: images that podman itself packed
# come back under the same digests with the same files, one of an index over two platforms is chosen by its
# architecture, and an image built on a pushed one is pushed and pulled too.
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || skip "podman.sh keeps images as root"
install_debian podman podman
podman --version
LAYOUT=$(IMAGES='' "$HERE/images.sh") # always the small ones: podman's vfs driver copies an image for each layer
start_registry "$WORK/data"
mkdir "$WORK/tmp"
export TMPDIR=$WORK/tmp

# With a storage of its own, and a policy file since Debian's may be missing.
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$WORK/policy.json"
pod() { podman --root "$WORK/storage" --runroot "$WORK/run" --storage-driver vfs --cgroup-manager cgroupfs "$@"; }
pull() { pod pull --quiet --tls-verify=false --signature-policy "$WORK/policy.json" "$@"; }
push() { # push IMAGE REFERENCE: pushes and prints the digest of what was pushed
  quiet pod push --quiet --tls-verify=false --signature-policy "$WORK/policy.json" --digestfile "$WORK/digest" "$@"
  cat "$WORK/digest"
}
files() { # files IMAGE: a checksum of all files of an image
  local root
  root=$(pod image mount "$1")
  (cd "$root" && find . -type f -print0 | sort -z | xargs -0 sha256sum) | sha256sum
  quiet pod image unmount "$1"
}

step "push"
declare -A id digest content
for tag in v1 v2 v3; do
  id[$tag]=$(pull "oci:$LAYOUT:$tag")
  digest[$tag]=$(push "${id[$tag]}" "docker://$REGISTRY/library/image:$tag")
  content[$tag]=$(files "${id[$tag]}")
done
pod manifest create multi >/dev/null
quiet pod manifest add --tls-verify=false --all multi "oci:$LAYOUT:multi"
quiet pod manifest push --tls-verify=false --all multi "docker://$REGISTRY/library/image:multi"

step "build"
mkdir "$WORK/context"
echo 'built here' >"$WORK/context/file"
printf 'FROM %s\nCOPY file /file\n' "$REGISTRY/library/image:v3" >"$WORK/context/Containerfile"
quiet pod build --tls-verify=false --signature-policy "$WORK/policy.json" --isolation chroot --format oci \
  --tag built "$WORK/context"
id[built]=$(pod image inspect --format '{{.Id}}' built)
digest[built]=$(push built "docker://$REGISTRY/library/image:built")
content[built]=$(files built)

step "pull"
for tag in v1 v2 v3 built; do
  quiet pod rmi --all --force
  got=$(pull "$REGISTRY/library/image:$tag")
  [ "$got" = "${id[$tag]}" ] || fail "$tag: pulled the image $got, pushed ${id[$tag]}"
  [ "$(files "$got")" = "${content[$tag]}" ] || fail "$tag: the files differ"
  rm -rf "$WORK/whole"
  get_whole library/image "${digest[$tag]}" "$WORK/whole"
done
for architecture in amd64 arm64; do
  quiet pod rmi --all --force
  got=$(pull --arch $architecture "$REGISTRY/library/image:multi")
  got=$(pod image inspect --format '{{.Architecture}}' "$got")
  [ "$got" = $architecture ] || fail "asked for $architecture, pulled $got"
done
stop_registry
