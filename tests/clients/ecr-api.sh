#!/usr/bin/env bash
# Proves that the registry's API is Amazon ECR's and Amazon ECR Public's: its tables are compared with the model of
# AWS's own library, of which every operation, member, constraint and error must be the same, and its operations are
# driven by that library with valid and invalid inputs, in a registry without users and in one with them.
#
# AWS   a virtual environment of Python with the AWS CLI (target/aws); made if it is missing
# SEED  of the inputs; random by default, and printed
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

. "$HERE/aws.sh"
ECR=$ROOT/examples/registry
SEED=${SEED:-$RANDOM}

step "the model"
for service in ecr ecr-public; do
  python "$ECR/tests/ecr/model.py" $service "$ECR/src/ecr/model/$service.model" \
    || fail "the table of $service differs from the model of botocore"
done

step "every operation, without users"
start_registry "$WORK/open"
python "$ECR/tests/ecr/drive.py" "http://$REGISTRY" "$SEED"
stop_registry

step "every operation, with users"
AUTH=1
start_registry "$WORK/closed"
export AWS_ACCESS_KEY_ID=${LOGIN%%:*} AWS_SECRET_ACCESS_KEY=${LOGIN#*:}
python "$ECR/tests/ecr/drive.py" "http://$REGISTRY" $((SEED + 1))
stop_registry
