"""What the peers share: rows written as they come, a time limit, and a child process whose death is told in its own
words.

A peer's `main` calls `supervise`, which runs the same command as a child and waits. The child calls `child_rows()` for
a `Rows` that appends one JSON object a line; whatever was written before a crash or a kill is kept. Python 3.9 or
newer, no packages.
"""

import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

ROWS = "RAGLAN_PEER_ROWS"  # names the child's file of rows; set by `supervise`
END = "RAGLAN_PEER_END"  # the child's limit, in seconds of the system's clock; set by `supervise`
WORDS = 4000  # characters kept of what a failure said
LATE_SECONDS = 8  # that a child may be late before it is killed


class TimeUp(Exception):
    """The time limit came before the work was done."""


class Clock:
    """Seconds since the program began (a child: since its parent did), against a limit."""

    def __init__(self, max_seconds):
        self.end = float(os.environ.get(END) or time.time() + max_seconds)

    def left(self):
        return self.end - time.time()

    def check(self):
        if self.left() <= 0:
            raise TimeUp()


class Rows:
    """The rows of this run. `facts` describe the peer, `row` is a figure, `begin` names what may fail next."""

    def __init__(self, path, told=sys.stderr):
        self.path, self.told = path, told
        self.earlier = read_rows(path)

    def write(self, kind, fields):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **fields}) + "\n")

    def facts(self, **fields):
        self.write("facts", fields)

    def row(self, **fields):
        self.write("row", fields)
        words = [f"{key} {show(value)}" for key, value in fields.items() if not isinstance(value, (list, dict))]
        print("  " + ", ".join(words), file=self.told, flush=True)

    def begin(self, what, **fields):
        self.write("begin", {"what": what, **fields})

    def failure(self, what, words, **fields):
        self.write("failure", {"what": what, "words": str(words)[-WORDS:], **fields})
        print(f"  failed: {what}: {str(words)[-300:]}", file=self.told, flush=True)


def show(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def read_rows(path):
    """Every whole line of a file of rows; none where there is no file."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # a line cut short by a crash
    return rows


def child_rows():
    """The rows of this process where it is the child of `supervise`, else None."""
    path = os.environ.get(ROWS)
    return Rows(path, sys.stdout) if path else None


def supervise(peer, args, clock, runner="", restarts=0):
    """Runs this program as a child, under the command `runner` if any, until the clock's end, and writes `args.out`.

    A child that dies is told as a failure with its exit and the last words of its standard error, and is started again
    up to `restarts` times; it finds the earlier rows in `Rows.earlier`. Returns the exit code: 0 if there is any row.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "rows.jsonl")
        rows = Rows(path)
        command = runner.split() + [sys.executable, os.path.abspath(sys.argv[0])] + sys.argv[1:]
        environment = {**os.environ, ROWS: path, END: str(clock.end), "PYTHONUNBUFFERED": "1"}
        for _ in range(restarts + 1):
            ended, words = run_child(command, environment, clock.left() + LATE_SECONDS)
            if ended == 0:
                break
            begun = [row for row in read_rows(path) if row["kind"] == "begin"]
            at = {key: value for key, value in (begun[-1] if begun else {"what": "start"}).items() if key != "kind"}
            rows.failure(at.pop("what"), words, ended=ended, **at)
            if clock.left() <= 1:
                break
        told = read_rows(path)
    of = lambda wanted: [
        {key: value for key, value in row.items() if key != "kind"} for row in told if row["kind"] == wanted
    ]
    report = {
        "peer": peer,
        "date": datetime.date.today().isoformat(),
        "command": " ".join(os.path.basename(word) if os.path.isabs(word) else word for word in sys.argv),
        **{key: value for facts in of("facts") for key, value in facts.items()},
        "rows": of("row"),
        "failures": of("failure"),
    }
    text = json.dumps(report, indent=1)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    else:
        print(text)
    return 0 if report["rows"] else 1


def run_child(command, environment, seconds):
    """How the child ended (an exit code, or the words for a signal or the limit), and the end of what it said."""
    with tempfile.TemporaryFile() as errors:
        # In this program's process group, so that who ends that ends the child too.
        child = subprocess.Popen(command, env=environment, stdout=sys.stderr.fileno(), stderr=errors)
        try:
            code = child.wait(timeout=max(seconds, 1))
            ended = code if code >= 0 else f"signal {signal.Signals(-code).name}"
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            ended = "killed at the time limit"
        except BaseException:
            child.kill()
            raise
        errors.seek(0)
        words = errors.read().decode("utf-8", "replace")
    sys.stderr.write(words)
    return ended, words[-WORDS:]


def arguments(parser, seconds):
    """The options of every peer."""
    parser.add_argument("--out", help="the file to write, JSON [default: standard output]")
    parser.add_argument(
        "--max-seconds", type=float, default=seconds, help="when to stop, whatever is left [default: %(default)s]"
    )
    return parser


def numbers(text):
    """1024,4096 as a list; 4096x2 counts twice."""
    values = []
    for part in text.split(","):
        value, _, times = part.partition("x")
        values += [int(value)] * int(times or 1)
    return values


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
