#!/usr/bin/env bash
# Proves the walkthrough of Amazon ECR's documentation, with the AWS CLI as it is: a user is added, a repository is
# created, docker, podman and skopeo log in with the password of `aws ecr get-login-password`, skopeo pushes, crane and
# podman pull, and the images are listed, described, previewed under a lifecycle policy, archived, restored and deleted,
# then the repository. The same for a public repository, which is pulled without a login. Another account has rights by
# a policy. A user who is removed is out at once. The server is killed with SIGKILL in between: logins and policies
# outlast that.
#
# AWS  a virtual environment of Python with the AWS CLI (target/aws); made if it is missing
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

. "$HERE/aws.sh"
install_debian skopeo skopeo
install_go_tool crane github.com/google/go-containerregistry/cmd/crane@v0.22.1
LAYOUT=$(IMAGES='' "$HERE/images.sh")
FILE=$WORK/credentials.json
PORT=$(free_port)
REGISTRY_OPTIONS=(--credentials "$FILE")

as() { # as ID:SECRET COMMAND...: runs a command with an access key
  AWS_ACCESS_KEY_ID=${1%%:*} AWS_SECRET_ACCESS_KEY=${1#*:} "${@:2}"
}
must_fail() { # must_fail ERROR COMMAND...: the command fails, and says so
  local error=$1
  shift
  if "$@" >"$WORK/output" 2>&1; then fail "it should fail with $error: $*"; fi
  grep -q "$error" "$WORK/output" || { cat "$WORK/output"; fail "expected $error of: $*"; }
}
must_be() { [ "$1" = "$2" ] || fail "$3: expected $1, found $2"; }
copy() { skopeo --insecure-policy copy --quiet --preserve-digests --all "$@"; }
push() { copy --dest-tls-verify=false "oci:$LAYOUT:$2" "docker://$REGISTRY/$1:$2"; }
pull() { # pull REPOSITORY TAG: by skopeo and crane, byte for byte
  rm -rf "$WORK/pulled" "$WORK/craned"
  copy --src-tls-verify=false "docker://$REGISTRY/$1:$2" "oci:$WORK/pulled:$2"
  same_layout "$WORK/pulled" "$LAYOUT" "$(tagged "$LAYOUT" "$2")"
  quiet crane pull --insecure --format=oci "$REGISTRY/$1:$2" "$WORK/craned"
  same_layout "$WORK/craned" "$LAYOUT" "$(tagged "$LAYOUT" "$2")"
}
log_in_to() { # log_in_to SERVICE: docker, podman and skopeo, as far as they are there, all by one file
  local client
  export DOCKER_CONFIG=$WORK/docker REGISTRY_AUTH_FILE=$WORK/docker/config.json
  rm -rf "$DOCKER_CONFIG"
  mkdir -p "$DOCKER_CONFIG"
  aws "$1" get-login-password >"$WORK/password"
  for client in "skopeo login --tls-verify=false" "podman login --tls-verify=false" "docker login"; do
    command -v "${client%% *}" >/dev/null || { echo "without ${client%% *}, which is not installed"; continue; }
    rm -f "$REGISTRY_AUTH_FILE"
    # shellcheck disable=SC2086
    quiet $client --username AWS --password-stdin "$REGISTRY" <"$WORK/password"
  done
}
log_out() {
  export DOCKER_CONFIG=$WORK/nobody REGISTRY_AUTH_FILE=$WORK/nobody/config.json
  mkdir -p "$DOCKER_CONFIG"
  echo '{}' >"$REGISTRY_AUTH_FILE"
}

step "a user, and a registry"
admin=$(add_user "$FILE" admin --policy AdministratorAccess)
reader=$(add_user "$FILE" reader --policy AmazonEC2ContainerRegistryReadOnly)
partner=$(add_user "$FILE" partner --account 222222222222 --policy AmazonEC2ContainerRegistryFullAccess)
export AWS_ACCESS_KEY_ID=${admin%%:*} AWS_SECRET_ACCESS_KEY=${admin#*:}
launch_registry "$WORK/data" "$PORT"
until [ "$(curl -s -o "$WORK/null" -w '%{http_code}' "http://$REGISTRY/v2/")" = 401 ]; do sleep 0.05; done
export AWS_ENDPOINT_URL=http://$REGISTRY
account=$(aws sts get-caller-identity --query Account --output text)
must_be "arn:aws:iam::$account:user/admin" "$(aws sts get-caller-identity --query Arn --output text)" "the caller"

step "create a repository, log in, push and pull"
aws ecr create-repository --repository-name team/app --tags Key=team,Value=storage >"$WORK/created"
must_be "$REGISTRY/team/app" "$(jq -r .repository.repositoryUri "$WORK/created")" "the repository's URI"
must_fail RepositoryAlreadyExistsException aws ecr create-repository --repository-name team/app
log_in_to ecr
for tag in v1 v2 v3 multi artifact; do push team/app $tag; done
for tag in v1 v2 v3 multi artifact; do pull team/app $tag; done

step "list and describe images"
must_list "v1 v2 v3 multi artifact" \
  "$(aws ecr list-images --repository-name team/app --filter tagStatus=TAGGED --query 'imageIds[].imageTag' \
    --output text | tr '\t' ' ')" "list-images"
v1=$(tagged "$LAYOUT" v1)
aws ecr describe-images --repository-name team/app --image-ids imageTag=v1 >"$WORK/described"
must_be "$v1" "$(jq -r '.imageDetails[0].imageDigest' "$WORK/described")" "the digest of v1"
size=$(jq '.config.size + ([.layers[].size] | add)' "$(blob "$LAYOUT" "$v1")")
must_be "$size" "$(jq -r '.imageDetails[0].imageSizeInBytes' "$WORK/described")" "the size of v1"
must_list "$(tagged "$LAYOUT" artifact)" \
  "$(aws ecr list-image-referrers --repository-name team/app --subject-id "imageDigest=$v1" \
    --query 'referrers[].digest' --output text)" "list-image-referrers"

step "SIGKILL in the middle of a push"
push team/app v1 2>>"$CLIENT_LOG" &
client=$!
sleep 0.1
kill_registry
wait "$client" || true
launch_registry "$WORK/data" "$PORT"
until aws ecr describe-repositories >"$WORK/null" 2>&1; do sleep 0.2; done
for tag in v1 v2 v3 multi artifact; do pull team/app $tag; done # with the login from before

step "a lifecycle policy"
cat >"$WORK/lifecycle.json" <<'END'
{"rules": [{"rulePriority": 1, "description": "Keep two images", "selection": {"tagStatus": "tagged",
  "tagPatternList": ["v*"], "countType": "imageCountMoreThan", "countNumber": 2}, "action": {"type": "expire"}}]}
END
policy=file://$WORK/lifecycle.json
# An index keeps its images, whatever a policy says.
must_be 0 "$(aws ecr batch-delete-image --repository-name team/app --image-ids imageTag=multi \
  --query 'length(failures)')" "failures"
aws ecr put-lifecycle-policy --repository-name team/app --lifecycle-policy-text "$policy" >"$WORK/null"
aws ecr start-lifecycle-policy-preview --repository-name team/app >"$WORK/null"
aws ecr wait lifecycle-policy-preview-complete --repository-name team/app
aws ecr get-lifecycle-policy-preview --repository-name team/app >"$WORK/preview"
must_list "v1 artifact" "$(jq -r '.previewResults[].imageTags[]' "$WORK/preview")" "what expires, with its artifact"
must_be 2 "$(jq .summary.expiringImageTotalCount "$WORK/preview")" "the preview's summary"
must_fail RepositoryNotFoundException aws ecr get-lifecycle-policy --repository-name team/none

step "archive and restore"
aws ecr update-image-storage-class --repository-name team/app --image-id "imageTag=v2" \
  --target-storage-class ARCHIVE >"$WORK/null"
must_fail "is archived" copy --src-tls-verify=false "docker://$REGISTRY/team/app:v2" "oci:$WORK/archived:v2"
must_list "$(tagged "$LAYOUT" v2)" "$(aws ecr list-images --repository-name team/app --filter imageStatus=ARCHIVED \
  --query 'imageIds[].imageDigest' --output text)" "archived images"
aws ecr update-image-storage-class --repository-name team/app --image-id "imageTag=v2" \
  --target-storage-class STANDARD >"$WORK/null"
pull team/app v2

step "who may do what"
log_out
must_fail "authentication required\|unauthorized" push team/app v1
must_fail AccessDeniedException as "$reader" aws ecr create-repository --repository-name team/more
as "$reader" log_in_to ecr
pull team/app v1
must_fail "not authorized" push team/app v1
must_fail AccessDeniedException as "$partner" aws ecr list-images --repository-name team/app --registry-id "$account"
aws ecr set-repository-policy --repository-name team/app --policy-text '{"Version": "2012-10-17", "Statement": [{
  "Sid": "partners", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::222222222222:root"},
  "Action": ["ecr:ListImages", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]}]}' >"$WORK/null"
as "$partner" aws ecr list-images --repository-name team/app --registry-id "$account" >"$WORK/null"
as "$partner" log_in_to ecr
pull team/app v3
"$REGISTRY_BIN" user remove partner --account 222222222222 --credentials "$FILE" >"$WORK/null"
gone() { ! copy --src-tls-verify=false "docker://$REGISTRY/team/app:v3" "oci:$WORK/partner:v3" >>"$CLIENT_LOG" 2>&1; }
end=$((SECONDS + 20))
until gone; do [ $SECONDS -lt $end ] || fail "a user who was removed still pulls"; sleep 0.5; done

step "a public repository"
aws ecr-public create-repository --repository-name app --catalog-data description=hello >"$WORK/created"
uri=$(jq -r .repository.repositoryUri "$WORK/created")
log_in_to ecr-public
push "${uri#*/}" v1
log_out
pull "${uri#*/}" v1
must_fail "authentication required\|unauthorized" push "${uri#*/}" v2
must_fail "authentication required\|unauthorized" copy --src-tls-verify=false "docker://$REGISTRY/team/app:v3" \
  "oci:$WORK/private:v3"
aws ecr-public delete-repository --repository-name app --force >"$WORK/null"

step "delete"
log_in_to ecr
must_be 0 "$(aws ecr batch-delete-image --repository-name team/app --image-ids imageTag=v1 imageTag=v3 \
  --query 'length(failures)')" "failures"
must_fail ImageNotFoundException aws ecr describe-images --repository-name team/app --image-ids imageTag=v1
pull team/app v2
must_fail RepositoryNotEmptyException aws ecr delete-repository --repository-name team/app
aws ecr delete-repository --repository-name team/app --force >"$WORK/null"
must_be '[]' "$(aws ecr describe-repositories --query repositories --output json)" "repositories"
stop_registry
