"""Runs the `cohort` command as its users do: in an empty folder, with real processes."""
import json
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import unittest

COHORT = os.environ.get("COHORT_BINARY", "cohort")
MPIRUN = shutil.which("mpirun")


def environment():
    # Open MPI refuses root, and more ranks than cores, unless told.
    return {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_rmaps_base_oversubscribe": "1"}


def command(arguments, ranks=0):
    line = [COHORT, *map(str, arguments)]
    return [MPIRUN, "--oversubscribe", "-np", str(ranks), *line] if ranks else line


def text(words, seed=1):
    """English-looking text: sentences of a small vocabulary, the same for the same seed."""
    draw = random.Random(seed)
    nouns = ["river", "mountain", "engine", "letter", "garden", "captain", "window", "winter", "story", "machine"]
    verbs = ["crosses", "remembers", "repairs", "follows", "answers", "builds", "forgets", "carries"]
    lines = []
    for _ in range(words // 6):
        lines.append(f"The {draw.choice(nouns)} {draw.choice(verbs)} the old {draw.choice(nouns)}.")
        if draw.random() < 0.1:
            lines.append("%")
    return "\n".join(lines) + "\n"


class CohortTest(unittest.TestCase):
    """A test with a folder of its own, the current one while the commands run."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="cohort-test-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def run_cohort(self, *arguments, ranks=0, timeout=120, env=None):
        return subprocess.run(command(arguments, ranks), cwd=self.folder, env={**environment(), **(env or {})},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)

    def cohort(self, *arguments, ranks=0, timeout=120, env=None):
        """Must succeed; gives its standard output."""
        done = self.run_cohort(*arguments, ranks=ranks, timeout=timeout, env=env)
        self.assertEqual(done.returncode, 0, f"{arguments}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def fails(self, *arguments, ranks=0, timeout=120, env=None):
        """Must fail by itself, not by a signal; gives its standard error."""
        done = self.run_cohort(*arguments, ranks=ranks, timeout=timeout, env=env)
        self.assertGreater(done.returncode, 0, f"{arguments}\n{done.stdout}\n{done.stderr}")
        self.assertNotIn("broken invariant", done.stderr)
        return done.stderr

    def start(self, *arguments, ranks=0, env=None, **pipes):
        return subprocess.Popen(command(arguments, ranks), cwd=self.folder, env={**environment(), **(env or {})},
                                stdin=subprocess.DEVNULL, start_new_session=True, **pipes)

    def prepare_data(self, words=6000, vocab=300):
        (self.folder / "corpus.txt").write_text(text(words))
        self.cohort("data", "tokenizer", "--input", "corpus.txt", "--separator", "%", "--vocab-size", vocab, "--output",
                    "tokenizer")
        self.cohort("data", "prepare", "--input", "corpus.txt", "--separator", "%", "--tokenizer",
                    "tokenizer/tokenizer.json", "--validation-fraction", 0.1, "--output", "data")

    def write_config(self, name="config.yaml", moe=False, steps=4, extra=""):
        (self.folder / name).write_text(f"""\
output: run
model:
  model_type: {'qwen3_moe' if moe else 'llama'}
  hidden_size: 32
  num_hidden_layers: 2
  num_attention_heads: 2
  head_dim: 16
  intermediate_size: 64
{'''  num_experts: 4
  num_experts_per_tok: 2
  moe_intermediate_size: 32
''' if moe else ''}data:
  train: [data]
  sequence_length: 32
train:
  steps: {steps}
  global_batch: 8
  dtype: f32
  threads: 1
optimizer:
  lr: 1.0e-2
{extra}""")
        return name

    def metrics(self, folder="run"):
        lines = (self.folder / folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def losses(self, folder="run"):
        """step -> loss; a step that was done twice (before and after a kill) counts as it was done last."""
        return {row["step"]: row["loss"] for row in self.metrics(folder) if "loss" in row}

    def weights(self, folder="run"):
        files = sorted((self.folder / folder / "checkpoints" / "latest").glob("model*.safetensors"))
        self.assertTrue(files)
        return b"".join(file.read_bytes() for file in files)
