#!/usr/bin/env python3
"""cohort generate and cohort serve, from a user's chair."""
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import unittest

from harness import MPIRUN, CohortTest

DATA = os.environ.get("COHORT_TEST_DATA")


class TrainedModel(CohortTest):
    def setUp(self):
        super().setUp()
        self.prepare_data()
        self.write_config(moe=True, steps=3)
        self.cohort("train", "--config", "config.yaml")
        self.model = "run/checkpoints/latest"

    def serve(self, *arguments, ranks=0):
        process = self.start("serve", "--model", self.model, "--listen", "127.0.0.1:0", "--address-file", "address",
                             *arguments, ranks=ranks, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(self.end, process)
        address = self.folder / "address"
        end = time.time() + 60
        while not (address.exists() and address.read_text().strip()):
            self.assertIsNone(process.poll(), process.stdout.read() if process.poll() is not None else "")
            self.assertLess(time.time(), end, "the server did not start")
            time.sleep(0.05)
        return process, address.read_text().strip()

    def end(self, process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


class GenerateTest(TrainedModel):
    def test_greedy_text_is_the_same_twice_and_json_has_the_tokens(self):
        arguments = ["generate", "--model", self.model, "--prompt", "The river", "--max-tokens", 8, "--temperature", 0]
        first = self.cohort(*arguments)
        self.assertEqual(first, self.cohort(*arguments))
        row = json.loads(self.cohort(*arguments, "--json"))
        self.assertLessEqual(len(row["token_ids"]), 8)
        self.assertIn(row["text"], first)
        self.assertIn(row["finish_reason"], ("length", "stop"))

    def test_bad_requests_are_named(self):
        base = ["generate", "--model", self.model, "--prompt"]
        self.assertIn("temperature", self.fails(*base, "x", "--temperature", -1))
        self.assertIn("context", self.fails(*base, "The river crosses. " * 200, "--max-tokens", 4))
        self.cohort(*base, "", "--max-tokens", 4)  # begins from BOS
        configs = (self.folder / self.model).glob("*.json")
        for config in configs:  # a model without BOS has nothing to begin from
            config.write_text(config.read_text().replace("bos_token", "no_bos_token"))
        self.assertIn("no token", self.fails(*base, "", "--max-tokens", 4))
        self.fails("generate", "--model", "nowhere", "--prompt", "x")
        self.assertIn("a seed is a whole number", self.fails(*base, "x", "--seed", -1))

    def test_a_device_that_is_not_there(self):
        base = ["generate", "--model", self.model, "--prompt", "The river", "--max-tokens", 4]
        self.cohort(*base, "--device", "cpu")
        self.assertIn("--device", self.fails(*base, "--device", "gpu"))
        none = {"CUDA_VISIBLE_DEVICES": ""}  # also where there are some
        for command in [base, ["serve", "--model", self.model, "--listen", "127.0.0.1:0"]]:
            self.assertIn("no CUDA device: ", self.fails(*command, "--device", "cuda", env=none))
        if MPIRUN:
            error = self.fails(*command, "--device", "cuda", ranks=2, env=none)
            self.assertIn("no CUDA device: ", error)

    def test_broken_weights_are_a_clear_error(self):
        folder = (self.folder / self.model).resolve()
        weights = folder / "model.safetensors"
        whole = weights.read_bytes()
        config = (folder / "config.json").read_text()
        arguments = ["generate", "--model", self.model, "--prompt", "The", "--max-tokens", 2]
        for broken in [whole[:4], whole[:-10], b"\xff" * 8 + whole[8:], whole[:8] + b"{" * 20 + whole[28:], b""]:
            weights.write_bytes(broken)
            self.assertIn("model.safetensors", self.fails(*arguments))
        weights.write_bytes(whole)
        (folder / "config.json").write_text(config.replace('"hidden_size": 32', '"hidden_size": 48'))
        self.assertIn("shape", self.fails(*arguments))
        (folder / "config.json").write_text(config[:-20])
        self.assertIn("config.json", self.fails(*arguments))
        (folder / "config.json").write_text(config)
        tokenizer = folder / "tokenizer.json"
        good = json.loads(tokenizer.read_text())
        good["model"]["merges"].append("zzzz qqqq")
        tokenizer.write_text(json.dumps(good))
        self.assertIn("merge", self.fails(*arguments))

    @unittest.skipUnless(DATA, "COHORT_TEST_DATA is unset: no published model to generate from")
    def test_a_published_model_tells_its_published_story(self):
        folder = pathlib.Path(DATA) / "stories260k"
        expected = json.loads((folder / "expected.json").read_text())
        row = json.loads(self.cohort("generate", "--model", folder, "--prompt", "", "--max-tokens",
                                     len(expected["greedy_ids"]), "--temperature", 0, "--json"))
        self.assertEqual(row["token_ids"], expected["greedy_ids"])
        self.assertEqual(row["text"], expected["text"])


class ServeTest(TrainedModel):
    def ask(self, address, prompt="The river", *arguments):
        return ["generate", "--server", address, "--prompt", prompt, "--max-tokens", 8, "--temperature", 0, *arguments]

    def test_it_answers_as_generate_does_and_drains_on_sigterm(self):
        process, address = self.serve()
        local = self.cohort("generate", "--model", self.model, "--prompt", "The river", "--max-tokens", 8, "--temperature", 0)
        self.assertEqual(self.cohort(*self.ask(address)), local)
        self.assertIn("temperature", self.fails("generate", "--server", address, "--prompt", "x", "--temperature", -1))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=30), 0)
        error = self.fails(*self.ask(address))
        for part in [f"no server answers at {address} (", "refused", "cohort serve", "--server"]:
            self.assertIn(part, error)

    @unittest.skipUnless(MPIRUN, "mpirun is not installed")
    def test_experts_spread_over_two_ranks_give_the_same_text(self):
        local = self.cohort("generate", "--model", self.model, "--prompt", "The river", "--max-tokens", 8, "--temperature", 0,
                            "--dtype", "f32")
        process, address = self.serve("--dtype", "f32", ranks=2)
        clients = [self.start(*self.ask(address), stdout=subprocess.PIPE, text=True) for _ in range(4)]
        for client in clients:
            out, _ = client.communicate(timeout=60)
            self.assertEqual(out, local)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)

    def test_a_model_that_is_not_there(self):
        self.assertIn("nowhere", self.fails("serve", "--model", "nowhere", "--listen", "127.0.0.1:0"))
        self.assertIn("listen", self.fails("serve", "--model", self.model, "--listen", "not an address"))

    def test_a_port_that_is_taken(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            error = self.fails("serve", "--model", self.model, "--listen", "127.0.0.1:%d" % taken.getsockname()[1])
        self.assertIn("Address already in use; choose another port, or 0 for any free one", error)
        self.assertEqual(len(error.strip().splitlines()), 1, error)


if __name__ == "__main__":
    unittest.main()
