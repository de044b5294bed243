"""Drives every operation of a registry's ECR API with botocore's own serializer and parser.

    drive.py ENDPOINT [SEED]

The registry is one without credentials, or with those in the environment. For each operation of both services:

- each constraint of its input in the model (required, length, value, pattern, enum) is broken once: the registry must
  answer with an error that names the member;
- valid inputs are made from the model, with names of what is there and of what is not: the registry must answer with
  members that the model's output has, of their types, or with an error that the model lists for the operation, and
  never with a failure of its own.

What is not built answers `UnsupportedCommandException`; those are listed at the end.
"""

import hashlib
import json
import random
import re
import string
import sys

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

# Errors of any operation, which the model does not list.
COMMON = {
    "AccessDeniedException",
    "InvalidParameterException",
    "SerializationException",
    "ThrottlingException",
    "UnsupportedCommandException",
    "ValidationException",
}
REFUSED = {"InvalidParameterException", "ValidationException", "InvalidTagParameterException", "TooManyTagsException"}
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
NONE = "sha256:" + "0" * 64
NUMBER = (int, float)
TYPES = {
    "structure": dict,
    "map": dict,
    "list": list,
    "string": str,
    "blob": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "timestamp": NUMBER,
    "double": NUMBER,
}
# Texts that patterns of the model want.
TEXTS = [
    "0" * 12,
    "team/app",
    "us-west-2",
    "v1",
    "dev*",
    NONE,
    "docker-hub/",
    "00000000-0000-4000-8000-000000000000",
    "arn:aws:iam::123456789012:role/r",
    "arn:aws:kms:us-east-1:123456789012:key/abc",
    "arn:aws:signer:us-east-1:123456789012:/signing-profiles/ab",
    "arn:aws:secretsmanager:us-east-1:123456789012:secret:ecr-pullthroughcache/x",
]

failures = []


class Driver:
    def __init__(self, endpoint, service, seed):
        session = botocore.session.get_session()
        if not session.get_credentials():
            session.set_credentials("any", "any")
        config = Config(parameter_validation=False, retries={"max_attempts": 1})
        self.client = session.create_client(service, region_name="us-east-1", endpoint_url=endpoint, config=config)
        self.client.meta.events.register("before-parse", self.keep)
        self.model = self.client.meta.service_model
        self.random = random.Random(seed)
        self.raw, self.world, self.called = None, {}, {}

    def keep(self, response_dict, **_):
        self.raw = response_dict["body"]

    def call(self, name, params):
        """The parsed answer, or the error's code and message."""
        method = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        operation = self.model.operation_model(name)
        try:
            answer = getattr(self.client, method)(**params)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status != 400 or code not in COMMON | {shape.name for shape in operation.error_shapes}:
                self.failed(name, f"{code} ({status}), which is not listed, for {params!r:.300}: {error}")
            self.called.setdefault(name, set()).add(code)
            return None, code, error.response["Error"]["Message"]
        self.check(name, operation.output_shape, json.loads(self.raw), "output")
        self.called.setdefault(name, set()).add("ok")
        return answer, None, None

    def failed(self, name, what):
        failures.append(f"{self.model.service_name} {name}: {what}")

    def check(self, name, shape, value, path):
        """Whether the model has what an answer has. The client's parser leaves out what it does not know."""
        kind = shape.type_name
        if not isinstance(value, TYPES[kind]) or (kind != "boolean" and isinstance(value, bool)):
            self.failed(name, f"{path} is no {kind}: {value!r:.100}")
        elif kind == "structure":
            for member in value.keys() - shape.members.keys():
                self.failed(name, f"{path} has no member {member}")
            for member in set(shape.required_members) - value.keys():
                self.failed(name, f"{path} lacks {member}")
            for member in value.keys() & shape.members.keys():
                self.check(name, shape.members[member], value[member], f"{path}.{member}")
        elif kind == "list":
            for item in value:
                self.check(name, shape.member, item, path)
        elif kind == "map":
            for item in value.values():
                self.check(name, shape.value, item, path)
        elif kind == "string" and shape.enum and value not in shape.enum:
            self.failed(name, f"{path} is none of {shape.enum}: {value}")

    def valid(self, shape, member=""):
        """An input that the model allows."""
        pick, kind = self.random, shape.type_name
        low, high = shape.metadata.get("min", 0), shape.metadata.get("max", 100)
        if member in self.world and pick.random() < 0.8:
            return pick.choice(self.world[member])
        if kind == "structure":
            wanted = [m for m in shape.members if m in shape.required_members or pick.random() < 0.3]
            return {m: self.valid(shape.members[m], m) for m in wanted}
        if kind == "list":
            return [self.valid(shape.member, member.removesuffix("s")) for _ in range(max(low, pick.randint(0, 2)))]
        if kind == "boolean":
            return pick.random() < 0.5
        if kind in ("integer", "long"):
            return pick.randint(low, min(high, 100))
        if kind == "blob":
            return b"content"
        return self.valid_text(shape)

    def valid_text(self, shape):
        if shape.enum:
            return self.random.choice(shape.enum)
        metadata = shape.metadata
        pattern, low, high = metadata.get("pattern"), metadata.get("min", 1), metadata.get("max", 100)
        fit = [t for t in TEXTS if low <= len(t) <= high and (not pattern or re.fullmatch(pattern, t))]
        length = max(low, min(high, 12))
        return self.random.choice(fit or ["".join(self.random.choices(string.ascii_lowercase, k=length))])

    def broken(self, shape, base, depth=0):
        """Inputs in which one thing is wrong, each with the member that it is."""
        for member in shape.required_members:
            yield {k: v for k, v in base.items() if k != member}, member
        for member, inner in shape.members.items():
            for value in self.bad(inner):
                yield {**base, member: value}, member
            if inner.type_name == "structure" and depth < 2:
                for value, name in self.broken(inner, self.complete(inner), depth + 1):
                    yield {**base, member: value}, name

    def bad(self, shape):
        """Values that a shape does not allow."""
        kind, metadata = shape.type_name, shape.metadata
        low, high = metadata.get("min", 0), metadata.get("max")
        if kind == "string" and shape.enum:
            yield "NO_SUCH_VALUE"
        elif kind == "string":
            if low:
                yield "a" * (low - 1)
            if high and high < 100_000:
                yield "a" * (high + 1)
            if pattern := metadata.get("pattern"):
                text = "Ä ! " * 200
                text = text[: max(low, min(high or 12, 12))]
                if not re.fullmatch(pattern, text):
                    yield text
        elif kind == "list":
            item = self.valid(shape.member)
            if low:
                yield [item] * (low - 1)
            if high:
                yield [item] * (high + 1)
        elif kind in ("integer", "long"):
            if "min" in metadata:
                yield low - 1
            if high:
                yield high + 1

    def complete(self, shape):
        return {m: self.valid(shape.members[m], m) for m in shape.required_members}

    def best(self, shape, whole=False):
        """An input of what is there: all that is required, and all that is known. A part that nothing is required of is
        whole: without any member it says that there is nothing."""
        wanted = [m for m in shape.members if whole or m in shape.required_members]
        known = {m: self.world[m][0] for m in wanted if m in self.world}
        parts = {m: shape.members[m] for m in wanted if shape.members[m].type_name == "structure"}
        inner = {m: self.best(part, whole=not part.required_members) for m, part in parts.items()}
        return {m: self.valid(shape.members[m], m) for m in wanted} | known | inner

    def drive(self, name, rounds):
        shape = self.model.operation_model(name).input_shape
        _, code, _ = self.call(name, self.best(shape))
        if code == "UnsupportedCommandException":
            return
        for params, member in self.broken(shape, self.complete(shape)):
            answer, code, message = self.call(name, params)
            if answer is not None:
                self.failed(name, f"took a bad {member}: {params!r:.200}")
            elif code not in REFUSED or member.lower() not in message.lower():
                self.failed(name, f"{code} for a bad {member}: {message:.200}")
        # What a later operation looks at is what the last of these left, not one drawn by chance.
        for params in [*(self.valid(shape) for _ in range(rounds)), self.best(shape)]:
            self.call(name, params)

    def push(self, repository, tag):
        """An image of one layer, by the operations that ECR's own front end uses."""
        digests = []
        for content in (b"{}", f"a layer of {tag}".encode()):
            begun, *_ = self.call("InitiateLayerUpload", {"repositoryName": repository})
            upload = {"repositoryName": repository, "uploadId": begun["uploadId"]}
            last = len(content) - 1
            self.call("UploadLayerPart", upload | {"partFirstByte": 0, "partLastByte": last, "layerPartBlob": content})
            digests.append("sha256:" + hashlib.sha256(content).hexdigest())
            self.world["layerDigest"] = digests
            self.call("CompleteLayerUpload", upload | {"layerDigests": digests[-1:]})
        config = {"mediaType": CONFIG, "digest": digests[0], "size": 2}
        layer = {"mediaType": LAYER, "digest": digests[1], "size": len(content)}
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
        put = {"repositoryName": repository, "imageManifest": json.dumps(document), "imageTag": tag}
        answer, code, message = self.call("PutImage", put)
        if answer is None:
            self.failed("PutImage", f"{code}: {message}")
        return answer["image"]["imageId"]["imageDigest"] if answer else NONE


def drive(endpoint, service, seed):
    driver, names = Driver(endpoint, service, seed), ["drive/one", "drive/two"]
    for name in reversed(names):
        answer, *_ = driver.call("CreateRepository", {"repositoryName": name})
        created = answer["repository"]
    digests = [driver.push(names[0], tag) for tag in ("v1", "v2")]
    policy = {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": f"{service}:*"}]}
    selection = {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1000}
    rule = {"rulePriority": 1, "selection": selection, "action": {"type": "expire"}}
    driver.world |= {
        "principalArn": ["arn:aws:iam::123456789012:role/drive"],
        "repositoryName": [*names, "drive/none"],
        "registryId": [created["registryId"]],
        "resourceArn": [created["repositoryArn"]],
        "imageTag": ["v1", "v2", "none"],
        "imageDigest": [*digests, NONE],
        "policyText": [json.dumps(policy)],
        "lifecyclePolicyText": [json.dumps({"rules": [rule]})],
        "nextToken": ["bm8gdG9rZW4"],
        "force": [False],
        "name": ["BLOB_MOUNTING"],
        "value": ["ENABLED"],
    }
    # What is looked at is made before, and deleted after.
    def turn(name):
        phases = [("Put", "Set", "Start", "Register"), (), ("Update", "Untag", "Delete"), ("BatchDelete",)]
        phase = next((number for number, begin in enumerate(phases) if begin and name.startswith(begin)), 1)
        return (4 if name == "DeleteRepository" else phase, name)

    order = sorted(driver.model.operation_names, key=turn)
    for name in order:
        driver.drive(name, rounds=12)
    for name in names:
        driver.call("DeleteRepository", {"repositoryName": name, "force": True})
    unsupported = sorted(n for n, codes in driver.called.items() if "UnsupportedCommandException" in codes)
    worked = [name for name in order if "ok" in driver.called[name]]
    print(f"{service}: {len(worked)} of {len(order)} operations worked; not built: {', '.join(unsupported) or 'none'}")
    for name in order:
        if name not in worked and name not in unsupported:
            driver.failed(name, f"never worked: {', '.join(sorted(driver.called[name]))}")


def main():
    endpoint, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    print(f"seed {seed}")
    for service in ("ecr", "ecr-public"):
        drive(endpoint, service, seed)
    for failure in failures:
        print(f"FAILED: {failure}")
    sys.exit(1 if failures else 0)


main()
