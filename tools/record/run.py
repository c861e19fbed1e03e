"""Runs the commands of stages within their limits, and keeps one archive a stage."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

from machine import identity, parse

WORDS = 6000  # characters kept of what a failed command said
ARCHIVE_BYTES = 16 << 20  # an archive at most
FILE_BYTES = 12 << 20  # kept of a file, from its end
TOLD = 0.85  # of a command's limit is what it is told: it ends what it has begun
GRACE_SECONDS = 15  # after its own --max-seconds, before a command is killed; a tenth of a short stage
LEFT_OUT = b"left out: "  # begins what stands for a file that was too long
LEAST_SECONDS = 20  # what a command needs to be worth beginning


class Step:
    """One command, in which `{raglan}` is the binary under its runner and `{seconds}` and `{minutes}` what it is told of
    its limit.

    Its standard output is kept as `<name>.json` or `.txt`, its errors as `.log`, and files that it made in its folder
    as `<name>.<file>`. `missing` says why it cannot run. `takes` are files that it finds in its folder: a name there to
    (a step of the stage, the file that it left); its own file of an earlier run is what it goes on from. It is run
    again where such a step was. `borrows` is the same of another stage's step that is done, `<stage>/<step>`: a name to
    (step, file, what the command says of it where it is there). It is run again where that file is another.
    """

    def __init__(self, name, command, seconds, missing=None, takes=None, borrows=None):
        self.name, self.command, self.seconds, self.missing = name, command, seconds, missing
        self.takes, self.borrows = takes or {}, borrows or {}

    def shown(self):
        """The command as a reader would give it."""
        words = (os.path.basename(part) if part.startswith("/") else part for part in self.command)
        return " ".join(words).replace("{raglan}", "raglan")


class Stage:
    """Steps that run one after another within one limit and leave one archive.

    `scratch`, where there is one, is a folder that is empty when the first begins and gone when the last has ended.
    """

    def __init__(self, name, steps, scratch=None):
        self.name, self.steps, self.scratch = name, steps, scratch


def run(stages, raglan, args):
    """Runs the stages; the exit code is 1 where any step broke. Rows without figures are told on standard error."""
    os.makedirs(args.out, exist_ok=True)
    began, broke, partly = time.monotonic(), [], []
    for stage in stages:
        left = args.total_seconds - (time.monotonic() - began)
        print(f"gpu-record: {stage.name}", flush=True)
        with scratch(stage.scratch):
            steps = run_stage(stage, raglan, args, min(args.stage_seconds, left))
        for step in steps:
            if step.get("some_failed"):
                partly.append(f"{stage.name}/{step['name']}")
            elif step["ended"] not in (0, "skipped"):
                broke.append(f"{stage.name}/{step['name']}")
    if partly:
        print(f"gpu-record: done, but some rows failed: {', '.join(partly)}", file=sys.stderr, flush=True)
    if broke:
        print(f"gpu-record: not done: {', '.join(broke)}", flush=True)
    return 1 if broke else 0


@contextlib.contextmanager
def scratch(folder):
    """An empty folder of that path while its body runs: what an earlier run left in it goes first."""
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, mode=0o700, exist_ok=True)
    try:
        yield
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def run_stage(stage, raglan, args, seconds):
    """Runs what the stage's archive lacks, and rewrites the archive after every step; returns the steps' rows."""
    archive = os.path.join(args.out, f"{stage.name}.tar.gz")
    done, left = {}, {}
    if not args.force:
        done, left = done_before([args.out, *args.earlier], stage.name, raglan.identity)
    record = {
        "stage": stage.name,
        "date": time.strftime("%Y-%m-%d"),
        "sha256": raglan.sha256,
        "version": raglan.version,
        "adapter": raglan.chosen,
        "steps": [],
    }
    files, began, anew = {}, time.monotonic(), set()
    for step in stage.steps:
        kept, made = done.get((step.name, step.shown()), (None, {}))
        lent = {name: borrowed([args.out, *args.earlier], of, raglan) for name, of in step.borrows.items()}
        same = kept and kept.get("borrowed", {}) == prints(lent)
        if same and not any(source in anew for source, _ in step.takes.values()):
            print(f"gpu-record: {stage.name}/{step.name}: done before", flush=True)
            record["steps"].append(kept)
            files.update(made)
        else:
            anew.add(step.name)
            sources = ((name, f"{source}.{file}") for name, (source, file) in step.takes.items())
            taken = {name: files.get(source, left.get(source)) for name, source in sources}
            grace = min(GRACE_SECONDS, seconds / 10)
            limit = min(step.seconds, seconds - (time.monotonic() - began) - grace)
            row, made = (
                run_step(step, raglan, limit, grace, taken, lent)
                if limit > min(LEAST_SECONDS, args.stage_seconds / 4)
                else unrun(step, left)
            )
            ended = "done, but some rows failed" if row.get("some_failed") else row["ended"]
            how = "done" if row["ended"] == 0 else f"{ended}: {row['words'].strip()[-400:]}"
            print(f"gpu-record: {stage.name}/{step.name}: {row['seconds']:.0f} s, {how}", flush=True)
            record["steps"].append(row)
            files.update(made)
        write_archive(archive, {"stage.json": json.dumps(record, indent=1).encode(), **files})
    return record["steps"]


def unrun(step, left):
    """The row of a step that did not run, and the files that it can go on from."""
    words = step.missing or "the time of this stage, or of this run, was over before it began"
    ended = "skipped" if step.missing else "no time"
    files = {f"{step.name}.{name}": left.get(f"{step.name}.{name}") for name in own(step)}
    row = {"name": step.name, "command": step.shown(), "ended": ended, "seconds": 0.0, "words": words}
    return row, {name: data for name, data in files.items() if data is not None}


def borrowed(folders, of, raglan):
    """The bytes of a file that a step of another stage left, in the first folder where that step is done; None where
    there is none."""
    (stage, step), file = of[0].split("/"), of[1]
    done, _ = done_before(folders, stage, raglan.identity)
    found = (made.get(f"{step}.{file}") for (name, _), (_, made) in done.items() if name == step)
    return next((data for data in found if data and not data.startswith(LEFT_OUT)), None)


def prints(lent):
    """Name to the SHA-256 of what was lent, None for what was not there."""
    return {name: hashlib.sha256(data).hexdigest() if data else None for name, data in lent.items()}


def run_step(step, raglan, limit, grace, taken, lent):
    """What the step did, and the files that it leaves. `taken` and `lent`: name to bytes of what lies in its folder, None
    for what is not there."""
    if step.missing:
        return unrun(step, {})
    row = {"name": step.name, "command": step.shown()}
    if lent:
        row["borrowed"] = prints(lent)
        absent = [f"{file} of {source}" for name, (source, file, _) in step.borrows.items() if not lent[name]]
        if absent:
            row["note"] = f"ran without {', '.join(absent)}: there was none"
    with tempfile.TemporaryDirectory() as folder:
        seconds, minutes = str(int(limit * TOLD)), f"{limit * TOLD / 60:.2f}"
        command = [part.replace("{seconds}", seconds).replace("{minutes}", minutes) for part in step.command]
        given = {name: data for name, data in {**taken, **lent}.items() if data is not None}
        command += [word for name, (_, _, words) in step.borrows.items() if name in given for word in words]
        for name, data in given.items():
            with open(os.path.join(folder, name), "wb") as file:
                file.write(data)
        if command[0] == "{raglan}":
            command = [*raglan.runner, raglan.binary, *command[1:]]
        began = time.monotonic()
        with open(os.path.join(folder, "stdout"), "w+b") as out, open(os.path.join(folder, "stderr"), "w+b") as errors:
            row["ended"] = wait(command, folder, out, errors, limit + grace)
        row["seconds"] = round(time.monotonic() - began, 2)
        files = {}
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                files[name] = end_of(path) if name in ("stdout", "stderr") else whole(path)
        # What it was given and left as it was is another step's.
        files = {name: data for name, data in files.items() if name in own(step) or data != given.get(name)}
        said, logged = files.pop("stdout", b""), files.pop("stderr", b"")
        # Every row was tried, and those that failed say why: to run it again would not change them.
        rows = parse(said.decode("utf-8", "replace")).get("rows")
        if row["ended"] == 1 and isinstance(rows, list) and rows:
            row["some_failed"] = True
        row["words"] = "" if row["ended"] == 0 else (logged or said).decode("utf-8", "replace")[-WORDS:]
        kept = {f"{step.name}.{name}": data for name, data in files.items()}
        kept[f"{step.name}.json" if said.lstrip().startswith(b"{") else f"{step.name}.txt"] = said
        kept[f"{step.name}.log"] = logged
        return row, {name: data for name, data in kept.items() if data}


def wait(command, folder, out, errors, seconds):
    """The exit code, or words for any other end. The whole process group goes when the time is over."""
    try:
        child = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True
        )
    except OSError as error:
        errors.write(str(error).encode())
        return "not started"
    try:
        code = child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        code = None
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    if code is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return f"killed after {seconds:.0f} s"
    return code if code >= 0 else f"signal {signal.Signals(-code).name}"


def own(step):
    """Names of the files that the step goes on from, and leaves."""
    return [name for name, (source, _) in step.takes.items() if source == step.name]


def whole(path):
    """A file's bytes; of one that is too long, words that say so: half a file is none."""
    size = os.path.getsize(path)
    if size > FILE_BYTES:
        return LEFT_OUT + f"it has {size:,} bytes\n".encode()
    with open(path, "rb") as file:
        return file.read()


def end_of(path):
    """A file's bytes, of a long one the last."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - FILE_BYTES))
        return file.read()


def done_before(folders, stage, of):
    """(name, command) of every step that is done in the stage's archives of that identity, to its row and files; of
    one that is done in several folders, the first's. And name to bytes of all that those archives hold."""
    done, left = {}, {}
    for folder in folders:
        path = os.path.join(folder, f"{stage}.tar.gz")
        files = read_archive(path) if os.path.isfile(path) else {}
        facts = parse(files.get("stage.json", b"").decode("utf-8", "replace"))
        if facts and identity(facts.get("adapter"), facts.get("sha256")) == of:
            left = {**files, **left}
            for step in facts.get("steps", []):
                made = {name: data for name, data in files.items() if name.startswith(step["name"] + ".")}
                if step.get("ended") == 0 or step.get("some_failed"):
                    done.setdefault((step["name"], step["command"]), (step, made))
    return done, left


def read_archive(path):
    """Name to bytes of every file; empty where the archive is broken."""
    try:
        with tarfile.open(path) as archive:
            return {
                member.name: archive.extractfile(member).read() for member in archive.getmembers() if member.isfile()
            }
    except (OSError, tarfile.TarError, EOFError) as error:
        print(f"gpu-record: {path}: {error}; taken as absent", file=sys.stderr)
        return {}


def write_archive(path, files):
    """Writes a .tar.gz in one move; leaves out the largest logs where it would be over its limit."""
    files = dict(files)
    while True:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(data), int(time.time())
                archive.addfile(member, io.BytesIO(data))
        if buffer.tell() <= ARCHIVE_BYTES:
            break
        largest = max((name for name in files if name != "stage.json"), key=lambda name: len(files[name]))
        files[largest] = LEFT_OUT + b"the archive would be over its limit\n"
    with open(path + ".part", "wb") as file:
        file.write(buffer.getvalue())
    os.replace(path + ".part", path)
