"""Elastic trainings as users run them: ranks are killed, stopped, asked to leave; others join; the coordinator dies."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

COHORT = os.environ.get("COHORT_BINARY") or sys.exit("COHORT_BINARY is not set")
ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 120
CONFIG = {
    "model": {"model_type": "llama", "hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4,
              "num_key_value_heads": 2},
    "train": {"steps": STEPS, "global_batch": 16, "micro_batch": 1, "dtype": "f32", "threads": 1, "deterministic": True},
    "schedule": {"decay": "constant", "warmup_steps": 10},
    "metrics": {"tensorboard": False}, "parallel": {"sharding": "zero-3", "timeout_seconds": 30},
}


def wait_for(what, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        if what():
            return True
        time.sleep(0.02)
    return False


class Job:
    def __init__(self, folder, data, ranks, **overrides):
        self.run = folder / "run"
        self.activity = folder / "activity"
        self.activity.mkdir(parents=True)
        config = {**CONFIG, "output": str(self.run), "data": {"train": [str(data)], "sequence_length": 64}, **overrides}
        path = folder / "config.yaml"
        path.write_text(json.dumps(config))
        self.environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                            "OMPI_MCA_rmaps_base_oversubscribe": "1", "COHORT_ACTIVITY": str(self.activity)}
        self.log = folder / "log.txt"
        self.launches = [self.launch(ranks, "--elastic", "--config", str(path))]

    def launch(self, ranks, *words):
        with open(self.log, "a") as log:
            return subprocess.Popen(["mpirun", "--enable-recovery", "-np", str(ranks), COHORT, "train", *words],
                                    env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def address_file(self):
        return next(p for p in (self.run / "elastic").glob("address-*") if p.suffix != ".pid")

    def add(self, ranks):
        self.launches.append(self.launch(ranks, "--join", self.address_file().read_text().strip()))

    def pids(self):
        """Of the processes that train."""
        alive = []
        for path in self.activity.iterdir():
            try:
                if pathlib.Path(f"/proc/{path.name}/stat").read_text().split()[2] != "Z":
                    alive.append(int(path.name))
            except FileNotFoundError:
                pass
        return sorted(alive)

    def losses(self):
        path = self.run / "metrics.jsonl"
        rows = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                pass
        return {row["step"]: row["loss"] for row in rows if "loss" in row}

    def step(self):
        return max(self.losses(), default=0)

    def words(self):
        return self.log.read_text()

    def end(self):
        for launch in self.launches:
            if launch.poll() is None:
                os.killpg(launch.pid, signal.SIGKILL)
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        for path in (self.run / "elastic").glob("address-*.pid"):
            try:
                os.kill(int(path.read_text().split()[0]), signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                pass


class ElasticTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="elastic-test-"))
        text = cls.folder / "text.txt"
        text.write_text("\n".join(f"rank {i % 7} of {i % 11} goes on after step {i}" for i in range(3000)))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
        subprocess.run([COHORT, "data", "tokenizer", "--input", text, "--vocab-size", "300", "--output", cls.folder / "tok"],
                       **quiet)
        subprocess.run([COHORT, "data", "prepare", "--input", text, "--tokenizer", cls.folder / "tok" / "tokenizer.json",
                        "--output", cls.folder / "data"], **quiet)
        job = Job(cls.folder / "undisturbed", cls.folder / "data", 3)
        job.launches[0].wait(timeout=200)
        cls.want = job.losses()
        job.end()

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)

    def start(self, ranks=3):
        job = Job(self.folder / self.id().split(".")[-1], self.folder / "data", ranks)
        self.addCleanup(job.end)
        self.assertTrue(wait_for(lambda: job.step() >= 3), job.log.read_text())
        return job

    def expect_undisturbed(self, job):
        self.assertTrue(wait_for(lambda: all(launch.poll() is not None for launch in job.launches), 200), job.words())
        self.assertEqual(len(self.want), STEPS)
        self.assertEqual(job.losses(), self.want, job.words())
        self.assertTrue(list((job.run / "checkpoints" / "latest").glob("model*.safetensors")))
        # Nothing is left behind.
        name = str(job.run)
        self.assertTrue(wait_for(lambda: subprocess.run(["pgrep", "-f", name], stdout=subprocess.DEVNULL).returncode == 1, 10))

    def test_ranks_die_and_others_join(self):
        job = self.start()
        os.kill(job.pids()[0], signal.SIGKILL)
        self.assertTrue(wait_for(lambda: "lost" in job.words()), job.words())
        job.add(2)
        self.assertTrue(wait_for(lambda: "joined" in job.words()), job.words())
        self.assertTrue(wait_for(lambda: len(job.pids()) == 4))
        os.kill(job.pids()[1], signal.SIGKILL)
        self.expect_undisturbed(job)
        self.assertEqual(job.words().count("lost"), 2, job.words())

    def test_a_rank_leaves_when_it_is_told_to(self):
        job = self.start()
        os.kill(job.pids()[1], signal.SIGTERM)
        self.assertTrue(wait_for(lambda: "has left; the others go on" in job.words()), job.words())
        self.expect_undisturbed(job)

    def test_a_stopped_rank_comes_back(self):
        job = self.start()
        pid = job.pids()[2]
        os.kill(pid, signal.SIGSTOP)
        self.assertTrue(wait_for(lambda: "lost" in job.words()), job.words())
        os.kill(pid, signal.SIGCONT)
        self.assertTrue(wait_for(lambda: "joined" in job.words()), job.words())
        self.expect_undisturbed(job)

    def test_the_coordinator_dies_and_is_there_again(self):
        job = self.start()
        file = job.address_file()
        pid = int(pathlib.Path(str(file) + ".pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_for(lambda: "is away" in job.words()), job.words())
        os.kill(job.pids()[0], signal.SIGKILL)  # a change without it
        self.assertTrue(wait_for(lambda: "lost" in job.words()), job.words())
        self.assertTrue(wait_for(lambda: "is back" in job.words()), job.words())
        job.add(1)
        self.assertTrue(wait_for(lambda: "joined" in job.words()), job.words())
        self.expect_undisturbed(job)

    def test_the_coordinator_alone_dies(self):
        job = self.start()  # whose first rank started it, and lives
        os.kill(int(pathlib.Path(str(job.address_file()) + ".pid").read_text().split()[0]), signal.SIGKILL)
        self.assertTrue(wait_for(lambda: "is away" in job.words()), job.words())
        self.assertTrue(wait_for(lambda: "is back" in job.words()), job.words())
        self.expect_undisturbed(job)

    def test_wrong_flags(self):
        def run(*words):
            done = subprocess.run([COHORT, "train", *words], capture_output=True, text=True)
            self.assertEqual(done.returncode, 1, done.stderr)
            return done.stderr

        self.assertIn("leave --config", run("--join", "localhost:1", "--config", "x.yaml"))
        self.assertIn("--coordinator goes with --elastic", run("--coordinator", "localhost:1", "--config", "x.yaml"))


if __name__ == "__main__":
    unittest.main()
