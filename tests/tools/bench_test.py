#!/usr/bin/env python3
"""cohort bench: every number that it promises is there and makes sense. No timing is asserted."""
import json
import unittest

from harness import CohortTest

SMALL = ["--set", "model.hidden_size=64", "--set", "model.num_hidden_layers=2", "--set", "model.vocab_size=512", "--set",
         "model.intermediate_size=128", "--set", "model.num_attention_heads=2", "--set", "model.num_key_value_heads=2",
         "--set", "model.head_dim=32"]


class BenchTest(CohortTest):
    def rows(self, *arguments):
        self.cohort("bench", *arguments, "--json", "rows.json")
        return [json.loads(line) for line in (self.folder / "rows.json").read_text().splitlines()]

    def test_train_step(self):
        for moe in ([], ["--moe"]):
            row = self.rows("train-step", "--steps", 2, "--sequence", 64, "--batch", 4, *moe, *SMALL)[0]
            for key in ["tokens_per_s", "model_flops_per_s", "gemm_flops_per_s", "mfu"]:
                self.assertGreater(row[key], 0, key)
            self.assertAlmostEqual(row["mfu"], row["model_flops_per_s"] / row["gemm_flops_per_s"], delta=1e-6)

    def test_decode(self):
        row = self.rows("decode", "--tokens", 8, *SMALL)[0]
        for key in ["tokens_per_s", "bytes_per_s", "copy_bytes_per_s", "bandwidth_share"]:
            self.assertGreater(row[key], 0, key)

    def test_serve(self):
        rows = self.rows("serve", "--concurrency", "1,4", "--requests", 4, "--prompt-tokens", 8, "--output-tokens", 8, *SMALL)
        self.assertEqual([row["concurrency"] for row in rows], [1, 4])
        for row in rows:
            self.assertGreater(row["output_tokens_per_s"], 0)
            for name in ["ttft_ms", "tpot_ms", "itl_ms", "e2el_ms"]:
                self.assertLessEqual(row[name]["p50"], row[name]["p99"])


if __name__ == "__main__":
    unittest.main()
