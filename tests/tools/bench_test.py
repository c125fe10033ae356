#!/usr/bin/env python3
"""cohort bench: every number that it promises is there and makes sense. No timing is asserted."""
import json
import shutil
import unittest
import xml.etree.ElementTree

from harness import CohortTest

SMALL = ["--set", "model.hidden_size=64", "--set", "model.num_hidden_layers=2", "--set", "model.vocab_size=512", "--set",
         "model.intermediate_size=128", "--set", "model.num_attention_heads=2", "--set", "model.num_key_value_heads=2",
         "--set", "model.head_dim=32"]


class BenchTest(CohortTest):
    def rows(self, *arguments, ranks=0):
        self.cohort("bench", *arguments, "--json", "rows.json", ranks=ranks)
        return [json.loads(line) for line in (self.folder / "rows.json").read_text().splitlines()]

    def test_train_step(self):
        for moe in ([], ["--moe"]):
            row = self.rows("train-step", "--steps", 2, "--sequence", 64, "--batch", 4, *moe, *SMALL)[0]
            for key in ["tokens_per_s", "model_flops_per_s", "gemm_flops_per_s", "mfu"]:
                self.assertGreater(row[key], 0, key)
            self.assertAlmostEqual(row["mfu"], row["model_flops_per_s"] / row["gemm_flops_per_s"], delta=1e-6)

    def test_decode(self):
        for moe in ([], ["--moe"]):
            row = self.rows("decode", "--tokens", 8, *moe, *SMALL)[0]
            for key in ["tokens_per_s", "bytes_per_s", "copy_bytes_per_s", "bandwidth_share"]:
                self.assertGreater(row[key], 0, key)

    def test_a_device_that_is_not_there(self):
        none = {"CUDA_VISIBLE_DEVICES": ""}  # also where there are some
        for bench in ("train-step", "decode", "serve"):
            self.assertIn("no CUDA device: ", self.fails("bench", bench, "--device", "cuda", *SMALL, env=none))

    def test_serve(self):
        rows = self.rows("serve", "--concurrency", "1,4", "--requests", 4, "--prompt-tokens", 8, "--output-tokens", 8, *SMALL)
        self.assertEqual([row["concurrency"] for row in rows], [1, 4])
        for row in rows:
            self.assertGreater(row["output_tokens_per_s"], 0)
            for name in ["ttft_ms", "tpot_ms", "itl_ms", "e2el_ms"]:
                self.assertLessEqual(row[name]["p50"], row[name]["p99"])

    def test_collectives(self):
        rows = self.rows("collectives", "--bytes", "8,4K", "--seconds", 0.01, "--mpi-name", "the-mpi", ranks=2)
        points = {}
        for row in rows:
            self.assertEqual((row["hosts"], row["ranks"], row["wire_bytes"]), (1, 2, None))
            self.assertGreater(row["median_s"], 0)
            self.assertTrue(row["algorithm"])
            points.setdefault((row["op"], row["bytes"]), set()).add(row["who"])
        for op in ("all-reduce", "reduce-scatter", "all-gather", "all-to-all"):
            for size in (8, 4096):
                self.assertLessEqual({"cohort", "the-mpi"}, points[op, size])
        self.assertIn(("send/recv", 8), points)

    def test_collectives_in_ways_of_ones_choice(self):
        rows = self.rows("collectives", "--ops", "all-reduce,broadcast", "--bytes", 4096, "--seconds", 0.01, "--who", "cohort",
                         "--algorithms", "chosen,ring,halving_doubling", "--codec", "int8", ranks=2)
        ways = {row["algorithm"]: row["chosen"] for row in rows if row["op"] == "all-reduce"}
        self.assertLessEqual({"ring", "halving_doubling", "int8"}, ways.keys())
        self.assertEqual(sum(ways.values()), 1)
        self.assertEqual(sum(row["op"] == "broadcast" for row in rows), 1)  # it has neither these nor codecs

    def test_collectives_are_tuned_and_the_table_is_read_back(self):
        for op in ("all-reduce", "all-gather"):  # the second time the first one's rules stay
            self.cohort("bench", "collectives", "--ops", op, "--bytes", "64,4096", "--seconds", 0.01, "--tune", "table",
                        ranks=2)
        lines = (self.folder / "table").read_text().splitlines()
        self.assertEqual(lines[0], "cohort-tuning-table 1")
        rules = [line.split() for line in lines if not line.startswith("#")][1:]
        self.assertEqual({rule[0] for rule in rules}, {"all-reduce", "all-gather"})
        for rule in rules:
            self.assertEqual(rule[1:3], ["1", "2"])

    def test_transfer(self):
        if shutil.which("ucx_perftest") is None:
            self.skipTest("no ucx_perftest")
        rows = self.rows("transfer", "--turns", 1, "--seconds", 0.01, "--latency-bytes", 8, "--bandwidth-bytes", 65536,
                         "--network", "--rails", "lo", ranks=2)
        self.assertEqual([(row["op"], row["bytes"], row["who"]) for row in rows],
                         [(op, size, who) for op, size in (("write_latency", 8), ("write_bandwidth", 65536))
                          for who in ("cohort", "ucx_perftest", "ucx_perftest")])
        for row in rows:
            self.assertGreater(row["median_s"], 0)

    def test_tokens(self):
        rows = self.rows("tokens", "--turns", 1, "--tokens", 20, "--experts", 6, "--top-k", 2, "--width", 16, ranks=3)
        self.assertEqual([row["who"] for row in rows], ["forwarding", "all-to-all-v"])
        self.assertEqual([row["rows_crossing"] for row in rows], [0, 0])
        self.assertIn("multiple of the 3 ranks", self.fails("bench", "tokens", "--experts", 7, ranks=3))

    def test_pipeline(self):
        (self.folder / "own.csv").write_text("0F0,0F1,0F2,0B0,0B1,0B2\n1F0,1B0,1F1,1B1,1F2,1I2,1W2\n")
        rows = self.rows("pipeline", "--schedules", "interleaved,zb-h1,zb-v,own.csv", "--micro-batches", 3, "--sequence", 32,
                         "--turns", 2, "--svg", "pipeline.svg", *SMALL, "--set", "model.num_hidden_layers=5", ranks=2)
        self.assertEqual([(row["schedule"], row["stages"]) for row in rows],
                         [("interleaved", 4), ("zb-h1", 2), ("zb-v", 4), ("own.csv", 2)])
        for row in rows:
            self.assertGreater(row["step_s"], 0)
            self.assertTrue(0 <= row["simulated_bubble"] < 1 and 0 <= row["bubble"] < 1, row)
            for stage in row["costs"]:
                self.assertGreater(min(stage["forward_s"], stage["input_s"]), 0)
        texts = [node.text for node in xml.etree.ElementTree.parse(self.folder / "pipeline.svg").iter()
                 if node.tag.endswith("text")]
        for title in ("zb-v, measured (kept: MB)", "zb-v, simulated (kept: MB)"):
            self.assertIn(title, texts)
        # One rank has one of every stage.
        self.assertEqual(len(self.rows("pipeline", "--schedules", "1f1b,interleaved", "--turns", 1, "--sequence", 16,
                                       "--measured-costs", *SMALL)), 2)
        self.assertIn("6 stages, and the model has 5 blocks",
                      self.fails("bench", "pipeline", "--schedules", "interleaved", "--stages-per-rank", 3, *SMALL, "--set",
                                 "model.num_hidden_layers=5", ranks=2))

    def test_transfer_refuses_what_makes_no_sense(self):
        self.assertIn("mpirun -np 2", self.fails("bench", "transfer"))
        self.assertIn("there are 3 ranks", self.fails("bench", "transfer", ranks=3))

    def test_collectives_refuses_what_makes_no_sense(self):
        self.assertIn("mpirun -np 2", self.fails("bench", "collectives"))
        self.assertIn("there are all-reduce, ", self.fails("bench", "collectives", "--ops", "all-redcue", ranks=2))
        self.assertIn("--who", self.fails("bench", "collectives", "--who", "nobody", ranks=2))
        self.assertIn("'rign'", self.fails("bench", "collectives", "--algorithms", "rign", ranks=2))
        self.assertIn("there are int8 int4", self.fails("bench", "collectives", "--codec", "int7", ranks=2))


if __name__ == "__main__":
    unittest.main()
