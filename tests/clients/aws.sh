# shellcheck shell=bash
# Has the AWS CLI and its library in a virtual environment, $AWS, and first in the PATH; or skips the script that
# sources this. Versions are pinned: what they say of the API is what ours is compared with.
AWS=${AWS:-$TARGET/aws}
AWS_PACKAGES=(awscli==1.46.3 boto3==1.44.8 botocore==1.44.8)
if [ "$(cat "$AWS/installed" 2>/dev/null)" != "${AWS_PACKAGES[*]}" ]; then
  command -v python3 >/dev/null || skip "the AWS CLI needs Python"
  { rm -rf "$AWS" && python3 -m venv "$AWS" && "$AWS/bin/pip" install -q "${AWS_PACKAGES[@]}"; } >"$WORK/pip.log" 2>&1 \
    || skip "the AWS CLI can't be installed: $(tail -n 1 "$WORK/pip.log")"
  echo "${AWS_PACKAGES[*]}" >"$AWS/installed"
fi
PATH=$AWS/bin:$PATH
export AWS_DEFAULT_REGION=us-east-1 AWS_PAGER='' AWS_EC2_METADATA_DISABLED=true NO_PROXY=127.0.0.1
export AWS_CONFIG_FILE=$WORK/aws-config AWS_SHARED_CREDENTIALS_FILE=$WORK/aws-credentials
