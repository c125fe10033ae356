#!/usr/bin/env python3
"""cohort plan: prices on a described cluster, the figure, this machine described, and errors that name file and line."""
import json
import unittest
import xml.etree.ElementTree

from harness import CohortTest

CLUSTER = """\
cohort-topology 1
hosts 3 ranks 4
hosts 1 ranks 2
rails 1
inside_host 0.5 80
between_hosts 20 1
"""


class PlanTest(CohortTest):
    def plan(self, text, *arguments, fails=False):
        (self.folder / "cluster.topology").write_text(text)
        run = self.fails if fails else self.cohort
        return run("plan", "collectives", "--topology", "cluster.topology", *arguments)

    def test_table_and_figure(self):
        out = self.plan(CLUSTER, "--op", "all-reduce", "--bytes", 1 << 20, "--svg", "figure.svg")
        self.assertIn("14 ranks on 4 hosts", out)
        self.assertEqual(out, self.plan(CLUSTER, "--op", "all-reduce", "--bytes", "1M"))
        self.assertIn("--bytes", self.plan(CLUSTER, "--op", "all-reduce", "--bytes", "1X", fails=True))
        for name in ["ring", "recursive_doubling", "hierarchical", "fastest: "]:
            self.assertIn(name, out)
        texts = [node.text for node in xml.etree.ElementTree.parse(self.folder / "figure.svg").iter()
                 if node.tag.endswith("text")]
        for name in ["ring", "hierarchical", "1 MiB"]:
            self.assertIn(name, texts)

    def test_this_machine_as_a_file_that_can_be_planned_with(self):
        text = self.cohort("plan", "topology")
        lines = text.splitlines()
        self.assertEqual(lines[0], "cohort-topology 1")
        self.assertTrue(any(line.startswith("rank 0 host 0") for line in lines))
        self.assertIn("1 ranks on 1 hosts", self.plan(text, "--op", "barrier", "--bytes", 0))

    def test_small_messages_prefer_few_rounds_and_large_ones_few_bytes(self):
        fastest = [self.plan(CLUSTER, "--op", "all-reduce", "--bytes", size).split("fastest: ")[1].split()[0]
                   for size in (56, 1 << 24)]
        self.assertNotEqual(fastest[0], fastest[1])

    def test_errors_name_file_and_line(self):
        ask = ["--op", "all-reduce", "--bytes", 64]
        for text, message in [
                (CLUSTER.replace("rails 1", "rail 1"), "cluster.topology:4: unknown key 'rail'; the nearest"),
                (CLUSTER.replace("hosts 1", "hosts 0"), "cluster.topology:3: a group of hosts is"),
                (CLUSTER.replace("hosts 20 1", "hosts 20"), "cluster.topology:6: between_hosts is"),
                ("cohort-topology 1\nrails 1\n", "cluster.topology: no hosts"),
                ("", "cluster.topology: empty")]:
            self.assertIn(message, self.plan(text, *ask, fails=True))
        self.assertIn("no such operation", self.plan(CLUSTER, "--op", "all-sum", "--bytes", 4, fails=True))

    def test_pipeline_schedules_and_their_figure(self):
        out = self.cohort("plan", "pipeline", "--ranks", 4, "--micro-batches", 8, "--svg", "pipeline.svg")
        rows = {line.split()[0]: line.split() for line in out.splitlines()[1:]}
        self.assertEqual(rows["1f1b"][1:], ["4", "4", "8", "33", "27.3%", "4"])
        self.assertEqual(rows["gpipe"][1:], ["4", "4", "8", "33", "27.3%", "8"])
        self.assertLess(float(rows["zb-h1"][4]), float(rows["1f1b"][4]))
        texts = [node.text for node in xml.etree.ElementTree.parse(self.folder / "pipeline.svg").iter()
                 if node.tag.endswith("text")]
        for text in ["rank 0", "rank 3", "forward", "weight gradient"]:
            self.assertIn(text, texts)

    def test_pipeline_of_blocks_and_of_a_file(self):
        out = self.cohort("plan", "pipeline", "--schedule", "1f1b", "--stages", 4, "--blocks", 14, "--embedding", 0.5,
                          "--head", 2, "--out", "own.csv")
        self.assertIn("blocks of the stages: 4 4 4 2", out)
        self.assertIn(" 8 ", self.cohort("plan", "pipeline", "--file", "own.csv"))
        (self.folder / "own.csv").write_text("0F0,0B0\n1F0,1X0\n")
        self.assertIn("own.csv:2: '1X0': an action is", self.fails("plan", "pipeline", "--file", "own.csv"))

    def test_pipelines_that_cannot_be(self):
        for arguments, message in [
                (["--stages", 3, "--ranks", 2], "3 stages cannot be dealt evenly to 2 ranks"),
                (["--stages", 4, "--schedule", "2f2b"], "no pipeline schedule is called '2f2b'; there are gpipe"),
                (["--stages", 4, "--ranks", 2, "--schedule", "1f1b"], "1f1b cannot have 2 stages a rank"),
                (["--stages", 4, "--blocks", 3, "--schedule", "1f1b"], "4 pipeline stages for 3 blocks"),
                (["--stages", 4, "--limit", 2, "--schedule", "gpipe"], "the limit is 2"),
                ([], "say --ranks, --stages or both, or --file")]:
            self.assertIn(message, self.fails("plan", "pipeline", *arguments))


MODEL = {"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
         "num_key_value_heads": 8, "intermediate_size": 1024, "vocab_size": 1000, "rms_norm_eps": 1e-5,
         "rope_theta": 10000.0, "tie_word_embeddings": False, "max_position_embeddings": 2048}


class PlanChangeTest(CohortTest):
    def change(self, *arguments, fails=False):
        (self.folder / "config.json").write_text(json.dumps(MODEL))
        run = self.fails if fails else self.cohort
        return run("plan", "change", "--model", "config.json", *arguments)

    def test_what_is_lost_is_in_the_memory_of_its_host(self):
        out = self.change("--from", "ranks=8 shard=8 sharding=zero-3", "--lost", "3,5", "--joined", 1, "--svg", "change.svg",
                          "--rank-tflops", 0.1)
        for words in ["before: 8 ranks", "lost 3, 5; 1 joins", "after: ", "in the memory of its host",
                      "stay where they are", "-> 8", "planned in"]:
            self.assertIn(words, out)
        self.assertNotIn("rank 3 ->", out)
        texts = [node.text for node in xml.etree.ElementTree.parse(self.folder / "change.svg").iter()
                 if node.tag.endswith("text")]
        for text in ["rank 3, lost", "member 8", "moves, as thick as much"]:
            self.assertIn(text, texts)

    def test_a_host_that_is_lost_with_its_memory_needs_the_checkpoint(self):
        (self.folder / "two.topology").write_text("cohort-topology 1\nhosts 4 ranks 2\nrails 1\n"
                                                  "inside_host 0.5 80\nbetween_hosts 20 1\n")
        where = ["--cluster", "two.topology", "--rank-tflops", 0.1]
        out = self.change("--from", "ranks=8 sharding=zero-3", "--lost", "2,3", *where)
        self.assertIn("from the newest checkpoint", out)
        out = self.change("--from", "ranks=8 sharding=zero-3", "--lost", "2", *where)
        self.assertNotIn("from the newest checkpoint", out)
        # Without snapshots it is gone with its rank; replicas have it still.
        self.assertIn("from the newest checkpoint",
                      self.change("--from", "ranks=8 sharding=zero-3", "--lost", "2", "--without-snapshots", *where))
        self.assertNotIn("from the newest checkpoint",
                         self.change("--from", "ranks=8 sharding=ddp", "--lost", "2,3", "--without-snapshots", *where))

    def test_simulated_members(self):
        out = self.change("--from", "shard=8 sharding=hsdp", "--members", 1000, "--lost", "7", "--svg", "many.svg",
                          "--links", 3)
        self.assertIn("before: 1000 ranks", out)
        xml.etree.ElementTree.parse(self.folder / "many.svg")

    def test_wrong_changes_are_named(self):
        for arguments, message in [
                (["--from", "ranks=4 tensr=2"], "--from ranks=4 tensr=2"),
                (["--from", "ranks=4", "--lost", 4], "--lost 4: the old mesh has ranks 0 to 3"),
                (["--from", "ranks=1", "--lost", 0], "nobody is left"),
                (["--from", "ranks=6 shard=4"], "--from ranks=6 shard=4"),
                (["--from", "ranks=4", "--members", 4, "--cluster", "x"], "leave --cluster out")]:
            self.assertIn(message, self.change(*arguments, fails=True))


if __name__ == "__main__":
    unittest.main()
