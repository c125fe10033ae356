#!/usr/bin/env python3
"""cohort convert: checkpoints of any mesh as Hugging Face folders, which one rank and others load bit for bit."""
import json
import struct
import unittest

from harness import MPIRUN, CohortTest

MESHES = {
    "pipeline-tensor": (4, False, {"pipeline": 2, "tensor": 2}, {}),
    "tied-pipeline": (4, False, {"pipeline": 2, "sharding": "zero-3"}, {"model.tie_word_embeddings": "true"}),
    "zero-3": (3, False, {"sharding": "zero-3"}, {"train.dtype": "bf16"}),
    "experts": (4, True, {"pipeline": 2, "expert": 2, "sharding": "zero-2"}, {"train.dtype": "bf16"}),
}


def tensors(folder, pattern="model*.safetensors"):
    """name -> (type, shape, bytes)"""
    found = {}
    for path in folder.glob(pattern):
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        for name, info in json.loads(data[8:8 + length]).items():
            if name != "__metadata__":
                begin, end = info["data_offsets"]
                found[name] = (info["dtype"], info["shape"], data[8 + length + begin:8 + length + end])
    return found


def masters(folder):
    return {name.removesuffix("/master"): tensor
            for name, tensor in tensors(folder, "optimizer*.safetensors").items() if name.endswith("/master")}


@unittest.skipUnless(MPIRUN, "mpirun is not installed")
class ConvertTest(CohortTest):
    def setUp(self):
        super().setUp()
        self.prepare_data(words=3000)

    def train(self, name):
        ranks, moe, keys, more = MESHES[name]
        self.write_config(moe=moe, steps=2)
        settings = {**{f"parallel.{key}": value for key, value in keys.items()}, **more, "output": name}
        flags = [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]
        self.cohort("train", "--config", "config.yaml", *flags, ranks=ranks)
        return self.folder / name / "checkpoints" / "latest"

    def first_loss(self, model, output):
        """Of a training that begins with these weights."""
        lines = (self.folder / "config.yaml").read_text().splitlines()
        section = lines.index("model:")
        end = next(i for i in range(section + 1, len(lines)) if not lines[i].startswith(" "))
        (self.folder / "imports.yaml").write_text("\n".join(lines[:section + 1] + [f"  path: {model}"] + lines[end:]) +
                                                  "\n")
        self.cohort("train", "--config", "imports.yaml", "--set", "train.steps=1", "--set", f"output={output}")
        return self.losses(output)[1]

    def test_every_mesh_exports_what_it_has_and_one_rank_loads_it(self):
        for name in MESHES:
            with self.subTest(name):
                saved = self.train(name)
                self.cohort("convert", "--input", saved, "--output", f"{name}-hf")
                made = self.folder / f"{name}-hf"
                self.assertEqual(tensors(made), tensors(saved))
                self.assertEqual("lm_head.weight" in tensors(made), name != "tied-pipeline")
                self.assertEqual({path.name for path in made.iterdir()} - {"tokenizer_config.json"},
                                 {"config.json", "tokenizer.json", "model.safetensors"})
                said = [self.cohort("generate", "--model", folder, "--prompt", "The river", "--max-tokens", 8,
                                    "--temperature", 0) for folder in (saved, made)]
                self.assertEqual(said[0], said[1])
                # Imported by one rank from either folder: it is one model. (On other meshes: resume_test.py.)
                losses = [self.first_loss(folder, f"{name}-{i}") for i, folder in enumerate((saved, made))]
                self.assertEqual(losses[0], losses[1])
                self.assertLess(losses[0], 5.6)  # not drawn at random: the logarithm of the vocabulary is 5.7

    def test_f32_of_a_bf16_training_is_its_masters(self):
        saved = self.train("experts")
        self.cohort("convert", "--input", saved, "--output", "exact", "--dtype", "f32", "--shard-megabytes", 1)
        exact, kept = tensors(self.folder / "exact"), masters(saved)
        self.assertGreater(len(kept), 20)
        for name, tensor in kept.items():
            self.assertEqual(exact[name], tensor, name)
        self.assertEqual({info[0] for info in exact.values()}, {"F32"})
        self.assertEqual(json.loads((self.folder / "exact" / "config.json").read_text())["torch_dtype"], "float32")
        # And rounded again it is what was trained with.
        self.cohort("convert", "--input", "exact", "--output", "rounded", "--dtype", "bf16")
        self.assertEqual(tensors(self.folder / "rounded"), tensors(saved))

    def test_what_does_not_fit_is_refused_and_nothing_is_left(self):
        saved = self.train("zero-3")
        self.cohort("convert", "--input", saved, "--output", "made")
        self.assertIn("exists already; name another --output, or replace it with --overwrite",
                      self.fails("convert", "--input", saved, "--output", "made"))
        self.cohort("convert", "--input", saved, "--output", "made", "--overwrite")
        config = json.loads((self.folder / "made" / "config.json").read_text())
        config["num_hidden_layers"] = 3
        (self.folder / "made" / "config.json").write_text(json.dumps(config))
        self.assertIn("missing: model.layers.2", self.fails("convert", "--input", "made", "--output", "other"))
        self.assertIn("nowhere", self.fails("convert", "--input", "nowhere", "--output", "other"))
        self.assertEqual([path.name for path in self.folder.glob("other*")], [])


if __name__ == "__main__":
    unittest.main()
