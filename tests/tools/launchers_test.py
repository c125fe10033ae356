"""Launchers other than mpirun: what examples/launchers says of them, as far as it can be tried without them."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from elastic_jobs import rows, send, wait_for

from harness import COHORT, CohortTest, environment

LAUNCHERS = pathlib.Path(__file__).resolve().parents[2] / "examples" / "launchers"


class LaunchersTest(CohortTest):
    def step_of_slurm(self, ranks, job, restart=None):
        """Processes that know each other as those of `srun --mpi=pmix` do."""
        processes = []
        with open(self.folder / "log.txt", "a") as log:
            for rank in range(ranks):
                env = {**environment(), "PMIX_RANK": str(rank), "PMIX_NAMESPACE": f"slurm.pmix.{job}.0",
                       "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(ranks),
                       "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": str(rank)}
                if restart is not None:
                    env["SLURM_RESTART_COUNT"] = str(restart)
                processes.append(subprocess.Popen([COHORT, "train", "--elastic", "--config", "config.yaml"], cwd=self.folder,
                                                  env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT))
        self.addCleanup(self.end, processes)
        return processes

    def end(self, processes):
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for path in (self.folder / "run" / "elastic").glob("address-*.pid"):
            send(int(path.read_text().split()[0]), signal.SIGTERM)

    def words(self):
        return (self.folder / "log.txt").read_text()

    def step(self):
        return max((row["step"] for row in rows(self.folder / "run" / "metrics.jsonl") if "loss" in row), default=0)

    def test_a_step_of_slurm_survives_a_rank_and_is_queued_again(self):
        self.prepare_data()
        self.write_config(steps=100000)
        ranks = self.step_of_slurm(3, 77)
        self.assertTrue(wait_for(lambda: self.step() >= 3), self.words())
        ranks[1].kill()
        self.assertTrue(wait_for(lambda: "lost 1. 2 ranks" in self.words()), self.words())
        # Its time is over: all hear SIGTERM, and save.
        for rank in ranks:
            rank.terminate()
        self.assertTrue(wait_for(lambda: all(rank.poll() is not None for rank in ranks)), self.words())
        self.assertEqual([rank.returncode for rank in ranks], [0, -signal.SIGKILL, 0], self.words())
        done = self.step()
        # The same number again.
        again = self.step_of_slurm(2, 77, restart=1)
        self.assertTrue(wait_for(lambda: self.step() >= done + 3), self.words())
        for rank in again:
            rank.terminate()
        self.assertTrue(wait_for(lambda: all(rank.poll() is not None for rank in again)), self.words())
        self.assertEqual([rank.returncode for rank in again], [0, 0], self.words())

    def test_a_coordinator_serves_the_next_launch(self):
        self.prepare_data()
        self.write_config(steps=100000)
        coordinator = self.start("coordinator", "--listen", "127.0.0.1:0", "--state", "state", stdout=subprocess.PIPE,
                                 text=True)
        self.addCleanup(coordinator.stdout.close)
        self.addCleanup(coordinator.wait)
        self.addCleanup(coordinator.kill)
        address = coordinator.stdout.readline().split()[-1]

        def alone():
            process = self.start("train", "--elastic", "--coordinator", address, "--config", "config.yaml",
                                 stdout=subprocess.DEVNULL)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            return process

        first = alone()
        self.assertTrue(wait_for(lambda: self.step() >= 3))
        first.send_signal(signal.SIGTERM)  # with a checkpoint
        self.assertEqual(first.wait(timeout=60), 0)
        second = alone()
        done = self.step()
        self.assertTrue(wait_for(lambda: self.step() >= done + 3))
        second.kill()  # without a word: its lease runs out
        second.wait()
        third = alone()

        def epochs():
            return [event["kind"] for event in rows(self.folder / "state" / "events.jsonl")].count("epoch")
        self.assertTrue(wait_for(lambda: epochs() == 3), epochs())
        third.send_signal(signal.SIGTERM)
        self.assertEqual(third.wait(timeout=60), 0)

    def test_scripts_and_manifests_are_whole(self):
        flags = {command: set(re.findall(r"--[a-z-]+", self.cohort(command, "--help"))) for command in ("train", "coordinator")}
        used = 0
        for path in sorted(LAUNCHERS.glob("*.sbatch")):
            subprocess.run(["bash", "-n", path], check=True)
            for command, words in re.findall(r"cohort (train|coordinator) ([^\n]*)", path.read_text()):
                for flag in re.findall(r"--[a-z-]+", words):
                    self.assertIn(flag, flags[command], path)
                    used += 1
        self.assertGreaterEqual(used, 6)
        try:
            import yaml
        except ImportError:
            self.skipTest("Python has no yaml: the manifests were not read")
        kinds = {}
        for path in sorted(LAUNCHERS.glob("*.yaml")):
            for manifest in yaml.safe_load_all(path.read_text()):
                kinds[manifest["kind"]] = manifest
        self.assertEqual(sorted(kinds), ["Job", "MPIJob", "Service", "StatefulSet"])
        # The training and the newcomers find the coordinator.
        address = kinds["Service"]["metadata"]["name"] + ":7070"
        self.assertEqual(json.dumps(kinds).count(json.dumps(address)), 2)
        launcher = kinds["MPIJob"]["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]
        workers = kinds["MPIJob"]["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"]
        ranks = int(launcher["args"][launcher["args"].index("-np") + 1])
        self.assertEqual(ranks, workers * kinds["MPIJob"]["spec"]["slotsPerWorker"])
        for container in (launcher, kinds["Job"]["spec"]["template"]["spec"]["containers"][0]):
            line = [*container["command"], *container["args"]]
            for flag in line[line.index("train"):]:
                if flag.startswith("--"):
                    self.assertIn(flag, flags["train"])


if __name__ == "__main__":
    unittest.main()
