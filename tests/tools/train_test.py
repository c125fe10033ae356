#!/usr/bin/env python3
"""cohort data and cohort train, from a user's chair."""
import os
import shutil
import signal
import subprocess
import time
import unittest

import harness
from harness import MPIRUN, CohortTest


class DataTest(CohortTest):
    def test_json_lines_and_text_make_loadable_shards(self):
        (self.folder / "a.jsonl").write_text('{"text": "one two three"}\n{"text": "four five six"}\n' * 50)
        self.cohort("data", "tokenizer", "--input", "a.jsonl", "--vocab-size", 270, "--output", "tok")
        out = self.cohort("data", "prepare", "--input", "a.jsonl", "--tokenizer", "tok/tokenizer.json", "--output", "out")
        self.assertIn("100", out)  # documents
        self.assertTrue((self.folder / "out" / "tokenizer.json").exists())

    def test_invalid_utf8_is_named_and_nothing_is_left(self):
        (self.folder / "bad.txt").write_bytes(b"fine\nnot \xff fine\n" * 100)
        (self.folder / "good.txt").write_text("fine words\n" * 100)
        self.cohort("data", "tokenizer", "--input", "good.txt", "--vocab-size", 260, "--output", "tok")
        error = self.fails("data", "prepare", "--input", "bad.txt", "--tokenizer", "tok/tokenizer.json", "--output", "out")
        self.assertIn("bad.txt", error)
        self.assertIn("UTF-8", error)
        self.assertFalse((self.folder / "out").exists())
        self.cohort("data", "prepare", "--input", "bad.txt", "--tokenizer", "tok/tokenizer.json", "--output", "out",
                    "--invalid-utf8", "replace")

    def test_missing_files_and_wrong_flags(self):
        self.assertIn("nowhere.txt", self.fails("data", "tokenizer", "--input", "nowhere.txt", "--vocab-size", 300,
                                                "--output", "tok"))

    def test_words_that_nobody_knows_come_before_what_is_missing(self):
        for words, message in [
                (["data", "tokenizer", "--inptu", "x"], "cohort data tokenizer has no option --inptu; the nearest is --input"),
                (["data", "prepare", "--otuput=x"], "cohort data prepare has no option --otuput; the nearest is --output"),
                (["train", "--confg", "x"], "cohort train has no option --confg; the nearest is --config"),
                (["train", "config.yaml"], "cohort train takes no argument config.yaml"),
                (["trian", "--config", "x"], "cohort has no subcommand trian; the nearest is train"),
                (["data", "prepar"], "cohort data has no subcommand prepar; the nearest is prepare"),
                (["data", "--input", "x", "tokenizer"], "cohort data has no option --input; options of a subcommand come after"),
                (["--no-such-option"], "cohort has no option --no-such-option"),
                (["keep"], "cohort has no subcommand keep\n")]:
            error = self.fails(*words)
            self.assertIn(message, error)
            self.assertIn(" --help for what there is", error)
        if MPIRUN:
            self.assertEqual(self.fails("train", "--confg", "x", ranks=2).count("--confg"), 1)
        self.assertIn("--input is required", self.fails("data", "tokenizer", "--output", "x"))
        self.assertIn("subcommand is required", self.fails("data"))

    def test_nothing_is_replaced_unasked(self):
        (self.folder / "a.txt").write_text("one two three\n" * 50)
        tokenizer = ["data", "tokenizer", "--input", "a.txt", "--output", "tok", "--vocab-size"]
        prepare = ["data", "prepare", "--input", "a.txt", "--tokenizer", "tok/tokenizer.json", "--output", "out"]
        self.cohort(*tokenizer, 260)
        self.cohort(*prepare)
        first = (self.folder / "tok" / "tokenizer.json").read_text()
        for again, what in ((tokenizer + [262], "tok/tokenizer.json"), (prepare, "out")):
            self.assertIn(f"{what} exists already; name another --output, or replace it with --overwrite", self.fails(*again))
        self.assertEqual((self.folder / "tok" / "tokenizer.json").read_text(), first)
        self.cohort(*tokenizer, 262, "--overwrite")
        self.assertNotEqual((self.folder / "tok" / "tokenizer.json").read_text(), first)
        self.cohort(*prepare, "--overwrite")


class TrainTest(CohortTest):
    def setUp(self):
        super().setUp()
        self.prepare_data()

    def test_the_loss_falls_and_everything_is_written(self):
        self.write_config(steps=20)
        self.cohort("train", "--config", "config.yaml")
        losses = self.losses()
        self.assertEqual(sorted(losses), list(range(1, 21)))
        self.assertLess(losses[20], 0.8 * losses[1])
        latest = self.folder / "run" / "checkpoints" / "latest"
        for name in ["config.json", "model.safetensors", "tokenizer.json", "trainer_state.json"]:
            self.assertTrue((latest / name).exists(), name)
        self.assertTrue(list((self.folder / "run").rglob("events.out.tfevents.*")))
        row = self.metrics()[0]
        for key in ["step", "loss", "tokens", "seconds", "grad_norm", "lr"]:
            self.assertIn(key, row)

    def test_ten_steps_a_kill_and_ten_more_equal_twenty(self):
        constant = ["--set", "schedule.decay=constant", "--set", "schedule.warmup_steps=0"]
        for moe in (False, True):
            with self.subTest(moe=moe):
                self.write_config(moe=moe, extra="checkpoint:\n  every: 10\n")
                # Killed as soon as the checkpoint of step 10 is there; what was done after it is lost.
                process = self.start("train", "--config", "config.yaml", "--set", "output=killed", "--set",
                                     "train.steps=100000", *constant)
                self.wait_for(self.folder / "killed" / "checkpoints" / "latest", process)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                saved = int(os.readlink(self.folder / "killed" / "checkpoints" / "latest").split("-")[1])
                steps = ["--set", f"train.steps={saved + 10}"]
                self.cohort("train", "--config", "config.yaml", "--set", "output=killed", *steps, *constant)
                self.cohort("train", "--config", "config.yaml", "--set", "output=whole", *steps, *constant)
                self.assertEqual(self.losses("whole"), self.losses("killed"))
                self.assertEqual(self.weights("whole"), self.weights("killed"))
                for name in ("whole", "killed"):
                    shutil.rmtree(self.folder / name)

    def wait_for(self, path, process, seconds=60):
        end = time.time() + seconds
        while not path.exists():
            self.assertIsNone(process.poll(), "ended before it made " + str(path))
            self.assertLess(time.time(), end, f"{path} did not appear")
            time.sleep(0.002)

    @unittest.skipUnless(MPIRUN, "mpirun is not installed")
    def test_two_ranks_give_the_losses_of_one(self):
        self.write_config(moe=True, steps=6)
        self.cohort("train", "--config", "config.yaml", "--set", "output=one")
        one = self.losses("one")
        for expert in (1, 2):
            self.cohort("train", "--config", "config.yaml", "--set", f"output=two-{expert}", "--set",
                        f"parallel.expert={expert}", ranks=2)
            two = self.losses(f"two-{expert}")
            for step, loss in one.items():
                self.assertAlmostEqual(two[step] / loss, 1.0, delta=1e-5)

    @unittest.skipUnless(MPIRUN, "mpirun is not installed")
    def test_a_checkpoint_of_two_ranks_goes_on_with_one(self):
        self.write_config(moe=True, steps=3, extra="parallel:\n  expert: 2\n")
        self.cohort("train", "--config", "config.yaml", ranks=2)
        self.cohort("train", "--config", "config.yaml", "--set", "train.steps=5", "--set", "parallel.expert=1")
        self.assertEqual(sorted(self.losses()), [1, 2, 3, 4, 5])

    @unittest.skipUnless(MPIRUN, "mpirun is not installed")
    def test_a_killed_rank_ends_the_run_with_its_name(self):
        self.write_config(moe=True, steps=100000, extra="parallel:\n  expert: 2\ncheckpoint:\n  every: 5\n")
        process = self.start("train", "--config", "config.yaml", ranks=2)
        self.wait_for(self.folder / "run" / "checkpoints" / "latest", process)
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(children[-1]), signal.SIGKILL)
        self.assertNotEqual(process.wait(timeout=60), 0)
        self.cohort("generate", "--model", "run/checkpoints/latest", "--prompt", "The river", "--max-tokens", 4)

    def test_interrupt_saves_and_resume_goes_on(self):
        self.write_config(steps=100000)
        process = self.start("train", "--config", "config.yaml")
        self.wait_for(self.folder / "run" / "metrics.jsonl", process)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        last = max(self.losses())
        self.assertTrue((self.folder / "run" / "checkpoints" / f"step-{last:08d}").exists())
        self.cohort("train", "--config", "config.yaml", "--set", f"train.steps={last + 2}")
        self.assertEqual(max(self.losses()), last + 2)

    def test_wrong_configs_name_file_line_and_nearest_key(self):
        self.write_config()
        path = self.folder / "config.yaml"
        good = path.read_text()
        path.write_text(good.replace("hidden_size", "hiden_size"))
        error = self.fails("train", "--config", "config.yaml")
        for part in ["config.yaml:4", "hiden_size", "hidden_size"]:
            self.assertIn(part, error)
        path.write_text(good.replace("steps: 4", "steps: many"))
        self.assertIn("steps", self.fails("train", "--config", "config.yaml"))
        path.write_text(good.replace("lr: 1.0e-2", "lr: -1"))
        self.assertRegex(self.fails("train", "--config", "config.yaml"), r"config.yaml:\d+: optimizer.lr is -1")
        path.write_text(good)
        self.assertIn("train.stepz", self.fails("train", "--config", "config.yaml", "--set", "train.stepz=3"))
        self.assertIn("nowhere.yaml", self.fails("train", "--config", "nowhere.yaml"))
        error = self.fails("train", "--config", "config.yaml", "--set", "model.model_type=mixtral",
                           "model.router.gate=hash")
        self.assertIn('"hash"; known gates: softmax, sigmoid', error)
        self.assertIn("data/none", self.fails("train", "--config", "config.yaml", "--set", "data.train=[data/none]"))

    def test_a_device_that_is_not_there(self):
        self.write_config()
        none = {"CUDA_VISIBLE_DEVICES": ""}  # also where there are some
        train = ["train", "--config", "config.yaml"]
        for ask in (["--device", "cuda"], ["--set", "device=cuda"]):
            self.assertIn("no CUDA device: ", self.fails(*train, *ask, env=none))
        self.assertIn("device is 'gpu'; it must be cpu or cuda", self.fails(*train, "--set", "device=gpu"))
        self.assertIn("no CUDA device: ", self.fails(*train, "--device", "cuda", ranks=2, env=none))
        self.assertIn("no CUDA device: ", self.fails(*train, "--elastic", "--device", "cuda", env=none))
        self.assertIn("it must be cpu or cuda", self.fails(*train, "--elastic", "--set", "device=gpu"))

    def test_what_no_machine_can_hold(self):
        self.write_config()
        error = self.fails("train", "--config", "config.yaml", "--set", "model.hidden_size=65536", "model.intermediate_size=65536",
                           "model.vocab_size=9000000")
        self.assertIn("the model is too large", error)
        error = self.fails("train", "--config", "config.yaml", "--set", "train.global_batch=999999999")
        self.assertIn("train.global_batch is 999999999; it must be 1 to", error)

    def test_a_disk_that_fills_during_a_save_keeps_the_last_checkpoint(self):
        # A file-size limit fails writes as a full disk does, without needing the rights to make a small one.
        self.write_config(steps=2)
        self.cohort("train", "--config", "config.yaml")
        before = self.weights()
        line = harness.command(["train", "--config", "config.yaml", "--set", "train.steps=4"])
        done = subprocess.run(["bash", "-c", 'trap "" XFSZ; ulimit -f 20; exec "$0" "$@"', *line], cwd=self.folder,
                              capture_output=True, text=True, timeout=120)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("safetensors", done.stderr)
        self.assertEqual(self.weights(), before)
        self.cohort("generate", "--model", "run/checkpoints/latest", "--prompt", "The", "--max-tokens", 2)
        self.assertFalse(list((self.folder / "run" / "checkpoints").glob("*.partial")))


if __name__ == "__main__":
    unittest.main()
