#!/usr/bin/env python3
"""cohort plan: prices on a described cluster, the figure, this machine described, and errors that name file and line."""
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


if __name__ == "__main__":
    unittest.main()
