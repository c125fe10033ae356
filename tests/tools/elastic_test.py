"""Elastic trainings as users run them: ranks are killed, stopped, asked to leave; others join; the coordinator dies."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from elastic_jobs import ENVIRONMENT, ElasticJob, prepare, wait_for

COHORT = os.environ.get("COHORT_BINARY") or sys.exit("COHORT_BINARY is not set")
STEPS = 120
CONFIG = {
    "model": {"model_type": "llama", "hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4,
              "num_key_value_heads": 2},
    "train": {"steps": STEPS, "global_batch": 16, "micro_batch": 1, "dtype": "f32", "threads": 1, "deterministic": True},
    "schedule": {"decay": "constant", "warmup_steps": 10},
    "metrics": {"tensorboard": False}, "parallel": {"sharding": "zero-3", "timeout_seconds": 30},
}


class ElasticTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="elastic-test-"))
        prepare(cls.folder, 1500)
        cls.config = {**CONFIG, "data": {"train": [str(cls.folder / "data")], "sequence_length": 64}}
        job = ElasticJob(cls.folder / "undisturbed", cls.config, 3)
        job.launches[0].wait(timeout=200)
        cls.want = job.losses()
        job.end()

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)

    def start(self, ranks=3):
        job = ElasticJob(self.folder / self.id().split(".")[-1], self.config, ranks)
        self.addCleanup(job.end)
        self.assertTrue(wait_for(lambda: job.step() >= 3), job.words())
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

    def test_ranks_that_joined_look_after_the_coordinator(self):
        job = self.start(2)
        launched = job.pids()
        job.add(2)
        self.assertTrue(wait_for(lambda: "joined" in job.words()), job.words())
        self.assertTrue(wait_for(lambda: len(job.pids()) == 4))
        for pid in launched:
            os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_for(lambda: "lost" in job.words()), job.words())
        former = job.coordinators()[-1]
        os.kill(former, signal.SIGKILL)
        self.assertTrue(wait_for(lambda: job.coordinators()[-1:] not in ([], [former]), 30), job.words())
        self.expect_undisturbed(job)  # which ends it, too

    def test_a_configuration_that_is_refused_leaves_nothing(self):
        folder = self.folder / "refused"
        folder.mkdir()
        config = folder / "config.yaml"
        config.write_text(json.dumps({**self.config, "output": str(folder / "run"), "elastic": {"lost_hosts": -2}}))
        job = subprocess.run(["mpirun", "--enable-recovery", "-np", "2", COHORT, "train", "--elastic", "--config", config],
                             capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
        self.assertIn("lost_hosts", job.stdout + job.stderr)
        self.assertTrue(wait_for(lambda: subprocess.run(["pgrep", "-f", str(folder)], stdout=subprocess.DEVNULL).returncode == 1, 10))

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
        os.kill(job.coordinators()[0], signal.SIGKILL)
        self.assertTrue(wait_for(lambda: "is away" in job.words()), job.words())
        os.kill(job.pids()[0], signal.SIGKILL)  # a change without it
        self.assertTrue(wait_for(lambda: "lost" in job.words()), job.words())
        self.assertTrue(wait_for(lambda: "is back" in job.words()), job.words())
        job.add(1)
        self.assertTrue(wait_for(lambda: "joined" in job.words()), job.words())
        self.expect_undisturbed(job)

    def test_the_coordinator_alone_dies(self):
        job = self.start()  # whose first rank started it, and lives
        os.kill(job.coordinators()[0], signal.SIGKILL)
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
