"""Renders botocore's model of a service in the form of `src/ecr/model/*.model`, and says where the two differ.

    model.py ecr src/ecr/model/ecr.model            # compares; prints a diff and exits with 1 where they differ
    model.py ecr                                    # prints

The model that is compared is that of the botocore that Python finds: an operation, member, constraint or error that it
has and ours has not, or has otherwise, is a line of the diff.
"""

import difflib
import sys
import textwrap

from botocore.loaders import Loader

HEAD = """\
# The wire of {name}: every operation, with the
# shapes that it takes and answers with, and its errors.
# `!` behind a member: it is required. A range behind a list or a string bounds its length, behind a number its value.
# `tests/ecr/model.py` compares this with the model of AWS's own clients.

target {target}
signing {signing}
"""


def bounds(shape):
    if "min" not in shape and "max" not in shape:
        return ""
    return f" {shape.get('min', '')}..{shape.get('max', '')}"


def rendered(name, shape):
    kind = shape["type"]
    if kind == "structure":
        required = shape.get("required", [])
        members = [f"{m}{'!' if m in required else ''} {s['shape']}" for m, s in shape["members"].items()]
        kind = ("fault" if shape.get("fault") else "error") if shape.get("exception") else "structure"
        return f"{kind} {name}: {', '.join(members)}".rstrip()
    if kind == "list":
        return f"list {name}{bounds(shape)} {shape['member']['shape']}"
    if kind == "map":
        return f"map {name} {shape['key']['shape']} {shape['value']['shape']}"
    if "enum" in shape:
        return f"enum {name} {' '.join(shape['enum'])}"
    pattern = f" /{shape['pattern']}/" if "pattern" in shape else ""
    return f"{kind} {name}{bounds(shape)}{pattern}"


def children(shape):
    kind = shape["type"]
    if kind == "structure":
        return [member["shape"] for member in shape["members"].values()]
    if kind == "list":
        return [shape["member"]["shape"]]
    return [shape["key"]["shape"], shape["value"]["shape"]] if kind == "map" else []


def render(service):
    model = Loader().load_service_model(service, "service-2")
    metadata = model["metadata"]
    lines, due, seen = [], [], set()
    for name, operation in sorted(model["operations"].items()):
        shapes = [operation[way]["shape"] for way in ("input", "output")]
        errors = [error["shape"] for error in operation.get("errors", [])]
        due += shapes + errors
        lines.append(f"operation {name} {shapes[0]} {shapes[1]}: {' '.join(errors)}")
    lines.append("")
    while due:
        name = due.pop()
        if name not in seen:
            seen.add(name)
            due += children(model["shapes"][name])
    lines += [rendered(name, model["shapes"][name]) for name in sorted(seen)]
    name, target, signing = metadata["serviceFullName"], metadata["targetPrefix"], metadata["signingName"]
    head = HEAD.format(name=name, target=target, signing=signing)
    wrap = textwrap.TextWrapper(120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return head + "\n" + "".join(f"{line if ' /' in line else wrap.fill(line)}\n" for line in lines)


def main():
    service, *files = sys.argv[1:]
    theirs = render(service)
    if not files:
        print(theirs, end="")
        return
    with open(files[0], encoding="utf-8") as file:
        ours = file.read()
    diff = difflib.unified_diff(ours.splitlines(), theirs.splitlines(), files[0], "botocore", lineterm="", n=0)
    found = list(diff)
    if found:
        print(*found, sep="\n")
        sys.exit(1)


main()
