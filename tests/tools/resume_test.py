#!/usr/bin/env python3
"""cohort train gone on with on other meshes and numbers of ranks, and cohort plan reshard."""
import os
import pathlib
import shutil
import unittest

from harness import MPIRUN, CohortTest

ONE_ROUNDING = 1 / 512  # of bf16, relative
STEPS = ["--set", "train.steps=6", "--set", "schedule.decay=constant", "--set", "schedule.warmup_steps=0"]

DENSE = [
    (1, {}),
    (2, {"sharding": "zero-3"}),
    (3, {"sharding": "zero-2", "shard": 3}),
    (4, {"tensor": 2, "sharding": "zero-1"}),
    (4, {"pipeline": 2, "context": 2, "sharding": "zero-2"}),
    (4, {"shard": 2, "sharding": "hsdp"}),
]
SPARSE = [
    (1, {}),
    (2, {"expert": 2, "sharding": "zero-1"}),
    (3, {"sharding": "zero-3", "shard": 3}),
    (4, {"expert": 4, "sharding": "zero-3"}),
    (4, {"expert": 2, "tensor": 2}),
    (4, {"pipeline": 2, "expert": 2, "sharding": "zero-2"}),
]


def mesh_flags(keys):
    return [flag for key, value in keys.items() for flag in ("--set", f"parallel.{key}={value}")]


@unittest.skipUnless(MPIRUN, "mpirun is not installed")
class ResumeTest(CohortTest):
    def setUp(self):
        super().setUp()
        self.prepare_data(words=3000)

    def train(self, mesh, output, *flags, fails=False):
        ranks, keys = mesh
        run = self.fails if fails else self.cohort
        return run("train", "--config", "config.yaml", "--set", f"output={output}", *mesh_flags(keys), *flags,
                   ranks=ranks)

    def saved_at(self, step, source, output):
        """A run that has got as far as that checkpoint of another one."""
        name = f"step-{step:08d}"
        shutil.copytree(self.folder / source / "checkpoints" / name, self.folder / output / "checkpoints" / name)

    def goes_on(self, moe, meshes, origin, dtype="f32"):
        self.write_config(moe=moe, extra="checkpoint:\n  every: 3\n  keep: 9\n")
        kind = ["--set", f"train.dtype={dtype}"]
        self.train(meshes[origin], "origin", *STEPS, *kind)
        want = self.losses("origin")
        self.assertEqual(sorted(want), [1, 2, 3, 4, 5, 6])
        for i, mesh in enumerate(meshes):
            if i == origin:
                continue
            output = f"mesh-{i}"
            self.saved_at(3, "origin", output)
            self.train(mesh, output, *STEPS, *kind)
            got = self.losses(output)
            self.assertEqual(sorted(got), [4, 5, 6])
            for step, loss in got.items():
                # Later than the next one: tests/parallel/arranged_training.h.
                tolerance = ONE_ROUNDING if dtype == "bf16" and step > 4 else 1e-6
                self.assertAlmostEqual(loss / want[step], 1.0, delta=tolerance, msg=f"{mesh}, step {step}")

    def test_a_dense_model_goes_on_on_five_other_meshes(self):
        self.goes_on(False, DENSE, origin=4)

    def test_a_model_of_experts_goes_on_on_five_other_meshes(self):
        self.goes_on(True, SPARSE, origin=3)

    def test_bf16_with_its_masters(self):
        # Tensor groups round partial sums of bf16 in other places: tests/parallel/resume_test.cc.
        meshes = [mesh for mesh in DENSE if "tensor" not in mesh[1]]
        self.goes_on(False, meshes, origin=1, dtype="bf16")

    def test_a_checkpoint_of_any_mesh_is_imported_on_any_other(self):
        self.write_config(moe=True, steps=2, extra="checkpoint:\n  shard_megabytes: 1\n")
        self.train(SPARSE[5], "origin")
        config = self.folder / "config.yaml"
        lines = config.read_text().splitlines()
        section = lines.index("model:")
        end = next(i for i in range(section + 1, len(lines)) if not lines[i].startswith(" "))
        lines[section + 1:end] = ["  path: origin/checkpoints/latest"]
        config.write_text("\n".join(lines) + "\n")
        first = {}
        for i in (0, 3, 4):
            self.train(SPARSE[i], f"imported-{i}", "--set", "train.steps=1")
            first[i] = self.losses(f"imported-{i}")[1]
            self.assertAlmostEqual(first[i] / first[0], 1.0, delta=1e-6, msg=str(SPARSE[i]))
        self.assertLess(first[0], 5.6)  # not drawn at random: the logarithm of the vocabulary is 5.7

    def test_broken_checkpoints_end_the_run_on_all_ranks(self):
        self.write_config(steps=2)
        self.train(DENSE[1], "run")
        folder = pathlib.Path(os.path.realpath(self.folder / "run" / "checkpoints" / "latest"))
        for name in ["model-00001-of-00002.safetensors", "optimizer-00000-of-00002.safetensors"]:
            data = (folder / name).read_bytes()
            (folder / name).write_bytes(data[:-7])
            error = self.train(DENSE[2], "run", "--set", "train.steps=3", fails=True)
            self.assertIn(name, error)
            (folder / name).write_bytes(data)
        error = self.train(DENSE[2], "run", "--set", "train.steps=3", "model.hidden_size=64", fails=True)
        self.assertIn("was trained with model.hidden_size 32 and the config says 64: set it back", error)
        self.assertEqual(error.count("was trained with"), 1, error)
        # What no shape shows.
        error = self.train(DENSE[2], "run", "--set", "train.steps=3", "model.num_attention_heads=4", "model.head_dim=8",
                           fails=True)
        self.assertIn("was trained with model.num_attention_heads 2 and the config says 4", error)
        error = self.train(DENSE[2], "run", "--set", "train.steps=3", "model.rope_theta=500", fails=True)
        self.assertIn("was trained with model.rope_theta 10000 and the config says 500", error)
        self.train(DENSE[2], "run", "--set", "train.steps=3")


class PlanReshardTest(CohortTest):
    def setUp(self):
        super().setUp()
        self.prepare_data(words=3000)
        self.write_config(moe=True, steps=1)
        self.cohort("train", "--config", "config.yaml")

    def plan(self, *arguments, fails=False):
        run = self.fails if fails else self.cohort
        return run("plan", "reshard", "--model", "run/checkpoints/latest", *arguments)

    def test_what_moves_between_meshes(self):
        out = self.plan("--from", "ranks=4,tensor=2,sharding=zero-1", "--to", "ranks=3,sharding=zero-3")
        for text in ["from 4 ranks (tensor 2;", "to 3 ranks (data alone;", "stay where they are", "rank 3 -> 0"]:
            self.assertIn(text, out)
        out = self.plan("--from", "ranks=4 sharding=zero-3", "--to", "ranks=4 sharding=zero-3")
        self.assertIn("0 B move in 0 messages", out)
        self.assertNotIn("->", out)

    def test_lost_ranks_and_hosts(self):
        (self.folder / "two.topology").write_text("cohort-topology 1\nhosts 4 ranks 1\nrails 1\ninside_host 0.5 80\n"
                                                  "between_hosts 20 1\n")
        out = self.plan("--from", "ranks=4,shard=2,sharding=hsdp", "--to", "ranks=3,sharding=zero-3", "--lost", 1,
                        "--topology", "two.topology")
        self.assertIn("between hosts:", out)
        self.assertNotIn("rank 1 ->", out)
        error = self.plan("--from", "ranks=4,sharding=zero-3", "--to", "ranks=3", "--lost", 1, fails=True)
        self.assertIn("has to be read from a checkpoint", error)

    def test_wrong_meshes_are_named(self):
        self.assertIn("--to tensr=2", self.plan("--from", "ranks=2", "--to", "tensr=2", fails=True))
        self.assertIn("ranks are 1 to", self.plan("--from", "ranks=0", "--to", "ranks=1", fails=True))
        self.assertIn("3", self.plan("--from", "ranks=3 tensor=2", "--to", "ranks=1", fails=True))
        self.assertIn("--lost 7", self.plan("--from", "ranks=3", "--to", "ranks=1", "--lost", 7, fails=True))


if __name__ == "__main__":
    unittest.main()
