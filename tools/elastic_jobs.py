"""Elastic trainings as processes, for the tools and tests that disturb them."""
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
               "OMPI_MCA_rmaps_base_oversubscribe": "1"}
# Whoever is asked to end ends its trainings first: as an exception this reaches their `finally`.
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def cohort_binary():
    for path in (os.environ.get("COHORT_BINARY"), ROOT / "build/release/tools/cohort", shutil.which("cohort")):
        if path and pathlib.Path(path).exists():
            return str(path)
    sys.exit(f"{pathlib.Path(sys.argv[0]).name}: there is no cohort binary: build it (tools/test.sh), or set COHORT_BINARY")


def prepare(folder, lines=4000):
    """A small text as training data, in folder/data."""
    for made in ("tok", "data"):
        shutil.rmtree(folder / made, ignore_errors=True)
    words = ["the", "rank", "that", "was", "lost", "comes", "back", "and", "all", "go", "on", "as", "if", "nothing", "were"]
    draw = random.Random(1)
    text = folder / "text.txt"
    text.write_text("\n".join(" ".join(draw.choice(words) for _ in range(12)) for _ in range(lines)))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    cohort = cohort_binary()
    subprocess.run([cohort, "data", "tokenizer", "--input", text, "--vocab-size", "300", "--output", folder / "tok"], **quiet)
    subprocess.run([cohort, "data", "prepare", "--input", text, "--tokenizer", folder / "tok" / "tokenizer.json",
                    "--output", folder / "data"], **quiet)


def rows(path):
    """The objects of a file of JSON lines, of which the last may be half written."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            pass
    return found


def wait_for(what, seconds=60, pause=0.02):
    """Whether it came true in time."""
    end = time.time() + seconds
    while time.time() < end:
        if what():
            return True
        time.sleep(pause)
    return False


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Slowed:
    """A process that is stopped for so much of the time, in turns of some milliseconds."""

    def __init__(self, pid, share):
        self.pid, self.share, self.over = pid, share, threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        # This process is delayed as all others are: what counts is what was, not what was wanted.
        stopped, begin = 0.0, time.monotonic()
        try:
            while not self.over.is_set():
                now = time.monotonic()
                if stopped <= self.share * (now - begin):
                    os.kill(self.pid, signal.SIGSTOP)
                    time.sleep(0.01)
                    os.kill(self.pid, signal.SIGCONT)
                    stopped += time.monotonic() - now
                else:
                    time.sleep(0.002)
        except ProcessLookupError:
            pass

    def end(self):
        self.over.set()
        self.thread.join()


class ElasticJob:
    """A training that `cohort train --elastic` starts, and the ranks that join it. Whatever is at `folder` goes."""

    def __init__(self, folder, config, ranks):
        """`config`: values of the configuration; its output becomes folder/run."""
        self.folder, self.run, self.activity = folder, folder / "run", folder / "activity"
        for old in (self.run, self.activity):
            shutil.rmtree(old, ignore_errors=True)
        self.activity.mkdir(parents=True)
        self.config = folder / "config.yaml"
        self.config.write_text(json.dumps({**config, "output": str(self.run)}))  # which is YAML too
        self.environment = {**ENVIRONMENT, "COHORT_ACTIVITY": str(self.activity)}
        self.log = folder / "log.txt"
        self.log.write_text("")
        self.launches = []
        self.start(ranks)

    def launch(self, ranks, *words):
        with open(self.log, "a") as log:
            self.launches.append(subprocess.Popen(
                # Each mpirun by itself would bind its first rank to the first core.
                ["mpirun", "--enable-recovery", "--bind-to", "none", "-np", str(ranks), cohort_binary(), "train", *map(str, words)],
                env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True))

    def start(self, ranks):
        self.launch(ranks, "--elastic", "--config", self.config)

    def add(self, ranks=1):
        self.launch(ranks, "--join", self.run)

    def address_file(self):
        """Of the coordinator that the training has started last."""
        files = [p for p in (self.run / "elastic").glob("address-*") if p.suffix not in (".pid", ".partial")]
        return max(files, key=lambda p: p.stat().st_mtime)

    def coordinators(self):
        pids = []
        for path in (self.run / "elastic").glob("address-*.pid"):
            try:
                pids.append(int(path.read_text().split()[0]))
            except (ValueError, IndexError):
                pass
        return pids

    def activities(self):
        """What each process that trains does, by pid."""
        found = {}
        for path in self.activity.iterdir():
            try:
                doing = path.read_bytes().split(b"\0")[0].decode(errors="replace")
                process = pathlib.Path("/proc") / path.name
                if "train" in (process / "cmdline").read_text() and (process / "stat").read_text().split()[2] != "Z":
                    found[int(path.name)] = doing
            except (FileNotFoundError, ProcessLookupError):
                pass
        return found

    def pids(self):
        return sorted(self.activities())

    def writes_checkpoint(self):
        try:
            return any(name.endswith(".partial") for name in os.listdir(self.run / "checkpoints"))
        except FileNotFoundError:
            return False

    def rows(self):
        """Of the steps, in the order in which they were done."""
        return [row for row in rows(self.run / "metrics.jsonl") if "loss" in row]

    def losses(self):
        """By step; one that was done twice counts as it was done last."""
        return {row["step"]: row["loss"] for row in self.rows()}

    def events(self):
        """Of the job's own coordinator."""
        path = next((self.run / "elastic").glob("*/events.jsonl"), None)
        return rows(path) if path else []

    def members(self):
        """As `cohort top` shows them."""
        done = subprocess.run([cohort_binary(), "top", "--coordinator", self.run, "--once", "--json"],
                              capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["members"]

    def step(self):
        """The last one that was done. Reads the end of the file only: it is asked often, beside ranks that need the cores."""
        path = self.run / "metrics.jsonl"
        if not path.exists():
            return 0
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
        for line in reversed(lines):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if "loss" in row:
                return row["step"]
        return 0

    def words(self):
        return self.log.read_text()

    def over(self):
        return all(launch.poll() is not None for launch in self.launches)

    def end(self):
        for launch in self.launches:
            if launch.poll() is None:
                os.killpg(launch.pid, signal.SIGKILL)
        for pid in self.pids():
            send(pid, signal.SIGKILL)
        for pid in self.coordinators():
            send(pid, signal.SIGTERM)
        for launch in self.launches:
            launch.wait()
