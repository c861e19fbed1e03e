"""The program under test, the adapter that it finds, and what must be carried to the machine."""

import hashlib
import json
import os
import shlex
import subprocess
import sys

CARRIED = 60  # MiB that the working tree and the binary may have together
SAY_SECONDS = 30  # that a question to the binary may take


class Raglan:
    """The binary with its digest, version and chosen adapter; facts are empty where it does not run."""

    def __init__(self, binary):
        self.binary = os.path.abspath(binary)
        if not os.path.isfile(self.binary):
            sys.exit(
                f"gpu-record: there is no {binary}: cargo build --release && strip target/release/raglan, "
                "or name it by --binary"
            )
        self.runner = shlex.split(os.environ.get("RAGLAN_RUNNER", ""))
        self.sha256 = digest(self.binary)
        self.version = self.say("--version")
        self.devices = parse(self.say("devices", "--json"))
        found = [one for one in self.devices.get("adapters", []) if one.get("index") == self.devices.get("chosen")]
        self.chosen = found[0] if found else {}
        self.adapter = self.chosen.get("name", "")

    @property
    def identity(self):
        return identity(self.chosen, self.sha256)

    def say(self, *arguments):
        try:
            done = subprocess.run(
                self.runner + [self.binary, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=SAY_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.decode("utf-8", "replace").strip()

    def sizes(self):
        """full on a GPU, small on a software adapter and where there is none."""
        return "small" if self.chosen.get("device_type", "cpu") == "cpu" else "full"


def identity(adapter, sha256):
    """What results must share to stand beside each other: the adapter, its driver and the binary."""
    return tuple(str((adapter or {}).get(key, "")) for key in ("name", "driver", "driver_info")) + (str(sha256),)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def parse(text):
    """The JSON of a text, {} where it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def tree_bytes(root):
    """Bytes of the files that git tracks or would add; None outside a work tree."""
    command = ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    paths = (os.path.join(root, os.fsdecode(name)) for name in set(done.stdout.split(b"\0")) if name)
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path))


def print_size(root, binary):
    """Prints what the tree and the binary weigh; 1 if that is over what may be carried."""
    tree, program = tree_bytes(root), os.path.getsize(binary) if os.path.isfile(binary) else 0
    total = (tree or 0) + program
    known = mib(tree) if tree is not None else "unknown (not a git work tree)"
    fits = total <= CARRIED << 20
    verdict = "" if fits else ": TOO LARGE; is the binary stripped?"
    print(
        f"gpu-record: working tree {known}, binary {mib(program)}, together {mib(total)} of {CARRIED}{verdict}",
        flush=True,
    )
    return 0 if fits else 1


def mib(count):
    return f"{count / (1 << 20):.1f} MiB"
