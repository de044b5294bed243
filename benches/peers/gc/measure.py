#!/usr/bin/env python3
"""How long other registries' collectors take for a constant number of dead blobs among more and more that live.

    benches/peers/gc/measure.py --distribution docker-registry --zot path/to/zot
    cargo bench --bench gc live                             # the same with strongroom

What it needs: Python 3.9; CNCF distribution, version 2 or 3 (Debian has it as `docker-registry`; elsewhere the program
is called `registry`); zot, built from its source by `GOEXPERIMENT=jsonv2 CGO_ENABLED=0 go build ./cmd/zot`. One of them
will do. It takes ten to twenty minutes, and 3 GB in --dir while it runs; what it starts it ends, and servers listen on
127.0.0.1 only.

What is measured: registries of images of ten blobs each (a manifest, a configuration, eight layers of 100 bytes),
spread over ten repositories. 200 of the images have no tag, so their 2,000 blobs are dead. The registries are written
in each program's own layout on disk, since that is quicker than through its API. After each collection, it is checked
that exactly what lives is there; then the dead images are written again. The counts take turns.

- distribution: the whole run of `garbage-collect --delete-untagged`. The registry must not take writes meanwhile: its
  documentation says so.
- zot: the collector runs in the server, with deduplication off and a delay of a second; measured is what it says in its
  log of each repository, summed up, without the waits between. It holds the lock of the whole image store while it is
  at a repository.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from datetime import datetime

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REPOSITORIES = 10
BLOBS = 10  # of an image, its manifest among them


def content(image, number):
    """100 bytes that are like no others."""
    return hashlib.shake_128(f"{image} {number}".encode()).digest(100)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Image:
    def __init__(self, number):
        self.number = number
        self.repository = f"team/app-{number % REPOSITORIES}"
        blobs = [json.dumps({"architecture": "amd64", "os": "linux", "n": number}).encode()]
        blobs += [content(number, layer) for layer in range(BLOBS - 2)]
        self.blobs = {sha256(data): data for data in blobs}
        types = [CONFIG] + [LAYER] * (BLOBS - 2)
        descriptors = [
            {"mediaType": kind, "digest": f"sha256:{sha256(data)}", "size": len(data)}
            for kind, data in zip(types, blobs)
        ]
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptors[0], "layers": descriptors[1:]}
        self.manifest = json.dumps(document).encode()
        self.digest = sha256(self.manifest)

    def all_blobs(self):
        return {**self.blobs, self.digest: self.manifest}


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


class Distribution:
    name = "distribution"

    def __init__(self, program, root):
        self.program, self.root = program, root
        self.base = root / "docker/registry/v2"
        self.config = root / "config.yml"
        write(self.config, f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {root}\n".encode())

    def blob(self, digest):
        return self.base / "blobs/sha256" / digest[:2] / digest / "data"

    def add(self, images, tagged):
        for image in images:
            repository = self.base / "repositories" / image.repository
            for digest, data in image.all_blobs().items():
                write(self.blob(digest), data)
            for digest in image.blobs:
                write(repository / "_layers/sha256" / digest / "link", f"sha256:{digest}".encode())
            link = f"sha256:{image.digest}".encode()
            write(repository / "_manifests/revisions/sha256" / image.digest / "link", link)
            if tagged:
                tag = repository / f"_manifests/tags/v{image.number}"
                write(tag / "current/link", link)
                write(tag / "index/sha256" / image.digest / "link", link)
            else:
                (repository / "_manifests/tags").mkdir(parents=True, exist_ok=True)

    def there(self):
        return {path.name for path in self.base.glob("blobs/sha256/*/*") if (path / "data").exists()}

    def collect(self):
        command = [self.program, "garbage-collect", "--delete-untagged", str(self.config)]
        start = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.monotonic() - start


class Zot:
    name = "zot"

    def __init__(self, program, root):
        self.program, self.root, self.log = program, root / "store", root / "log"
        self.root.mkdir(parents=True)
        self.config = root / "config.json"

    def add(self, images, tagged):
        by_repository = {}
        for image in images:
            for digest, data in image.all_blobs().items():
                write(self.root / image.repository / "blobs/sha256" / digest, data)
            descriptor = {"mediaType": MANIFEST, "digest": f"sha256:{image.digest}", "size": len(image.manifest)}
            if tagged:
                descriptor["annotations"] = {"org.opencontainers.image.ref.name": f"v{image.number}"}
            by_repository.setdefault(image.repository, []).append(descriptor)
        for repository, descriptors in by_repository.items():
            path = self.root / repository / "index.json"
            index = json.loads(path.read_text()) if path.exists() else {"schemaVersion": 2, "manifests": []}
            index["manifests"] += descriptors
            write(path, json.dumps(index).encode())
            write(self.root / repository / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')

    def there(self):
        return {path.name for path in self.root.glob("team/*/blobs/sha256/*")}

    def collect(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = {
            "distSpecVersion": "1.1.1",
            "storage": {
                "rootDirectory": str(self.root),
                "dedupe": False,
                "gc": True,
                "gcDelay": "1s",
                "gcInterval": "24h",
                "gcMaxSchedulerDelay": "1ms",
                "retention": {"delay": "1s"},
            },
            "http": {"address": "127.0.0.1", "port": str(port)},
            "log": {"level": "info", "output": str(self.log)},
        }
        self.config.write_text(json.dumps(config))
        self.log.unlink(missing_ok=True)
        time.sleep(1.5)  # what was written just now is too young before
        server = subprocess.Popen(
            [self.program, "serve", str(self.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            for _ in range(6000):
                if server.poll() is not None:
                    sys.exit(f"zot ended: see {self.log}")
                began, ended = self.times()
                if len(ended) == REPOSITORIES:
                    return sum((ended[at] - began[at]).total_seconds() for at in ended)
                time.sleep(0.1)
            sys.exit(f"zot did not collect: see {self.log}")
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()

    def times(self):
        began, ended = {}, {}
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # not written whole yet
            message, at = entry.get("message", ""), entry.get("time", "")
            # Python before 3.11 reads six digits of a second at most.
            at = re.sub(r"(\.\d{6})\d+", r"\1", at).replace("Z", "+00:00")
            prefixes = [("executing gc of orphaned blobs for ", began), ("gc successfully completed for ", ended)]
            for prefix, times in prefixes:
                if message.startswith(prefix):
                    times.setdefault(message[len(prefix) :], datetime.fromisoformat(at))
        return began, ended


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--distribution", metavar="PROGRAM")
    parser.add_argument("--zot", metavar="PROGRAM")
    counts_help = "how many blobs, dead ones included, with commas between"
    parser.add_argument("--counts", default="10000,20000,40000", help=counts_help)
    parser.add_argument("--dead", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    folder = pathlib.Path("target/gc-peers")
    parser.add_argument("--dir", type=pathlib.Path, default=folder, help="a folder that is not there yet")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.counts.split(",")]
    dead = [Image(number) for number in range(arguments.dead // BLOBS)]
    base = arguments.dir.resolve()
    base.mkdir(parents=True)  # a folder of its own: it goes at the end
    try:
        registries = []
        for kind, program in [(Distribution, arguments.distribution), (Zot, arguments.zot)]:
            for count in counts if program else []:
                registry = kind(program, base / f"{kind.name}-{count}")
                live = [Image(number) for number in range(len(dead), count // BLOBS)]
                registry.add(live, tagged=True)
                registries.append((registry, count, {digest for image in live for digest in image.all_blobs()}, []))
                print(f"{kind.name}: {count} blobs written", flush=True)
        for number in range(arguments.rounds):
            for registry, count, live, seconds in registries:
                registry.add(dead, tagged=False)
                os.sync()
                seconds.append(registry.collect())
                there = registry.there()
                if there != live:
                    missing, surplus = len(live - there), len(there - live)
                    sys.exit(f"{registry.name}, {count}: {missing} blobs are missing, {surplus} too many")
                print(f"round {number + 1}: {registry.name}, {count} blobs: {seconds[-1]:.2f} s", flush=True)
        for registry, count, _, seconds in registries:
            median, least, most = statistics.median(seconds), min(seconds), max(seconds)
            print(f"{registry.name}, {count} blobs: {median:.2f} s ({least:.2f} to {most:.2f})")
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
