#!/usr/bin/env python3
"""cohort plan: prices on a described cluster, the figure, and errors that name file and line."""
import unittest
import xml.etree.ElementTree

from harness import CohortTest

CLUSTER = """\
hosts:
  - {count: 3, ranks: 4}
  - {count: 1, ranks: 2}
rails: 1
links:
  inside_host: {latency_us: 0.5, gbit_per_s: 80}
  between_hosts: {latency_us: 20, gbit_per_s: 1}
"""


class PlanTest(CohortTest):
    def plan(self, text, *arguments, fails=False):
        (self.folder / "cluster.yaml").write_text(text)
        run = self.fails if fails else self.cohort
        return run("plan", "collectives", "--topology", "cluster.yaml", *arguments)

    def test_table_and_figure(self):
        out = self.plan(CLUSTER, "--op", "all-reduce", "--bytes", 1 << 20, "--svg", "figure.svg")
        self.assertIn("14 ranks on 4 hosts", out)
        for name in ["ring", "recursive_doubling", "hierarchical", "fastest: "]:
            self.assertIn(name, out)
        texts = [node.text for node in xml.etree.ElementTree.parse(self.folder / "figure.svg").iter()
                 if node.tag.endswith("text")]
        for name in ["ring", "hierarchical", "1 MiB"]:
            self.assertIn(name, texts)

    def test_prices_for_jobs_on_that_cluster(self):
        self.plan(CLUSTER, "--op", "barrier", "--bytes", 0, "--prices", "prices")
        lines = (self.folder / "prices").read_text().splitlines()
        self.assertEqual(lines[0], "cohort-prices 1")
        between = [line.split() for line in lines if line.startswith("between_hosts ")][0]
        self.assertEqual([round(float(number), 6) for number in between[1:]], [20, 1, 0.1])
        self.assertIn("rails 1", lines)

    def test_small_messages_prefer_few_rounds_and_large_ones_few_bytes(self):
        fastest = [self.plan(CLUSTER, "--op", "all-reduce", "--bytes", size).split("fastest: ")[1].split()[0]
                   for size in (56, 1 << 24)]
        self.assertNotEqual(fastest[0], fastest[1])

    def test_errors_name_file_and_line(self):
        ask = ["--op", "all-reduce", "--bytes", 64]
        for text, message in [
                (CLUSTER.replace("rails: 1", "rail: 1"), "cluster.yaml:4: unknown key 'rail'"),
                (CLUSTER.replace("count: 1,", "count: 0,"), "cluster.yaml:3: count must be a whole number"),
                (CLUSTER.replace("latency_us: 20, ", ""), "cluster.yaml:7: a link without latency_us"),
                (CLUSTER.replace("gbit_per_s: 80", "gbit_per_s: -1"), "cluster.yaml:6: gbit_per_s must be"),
                (CLUSTER.replace("  between_hosts", "  between_host"), "cluster.yaml:7: unknown key"),
                (CLUSTER.replace("rails: 1", "rails: [1"), "cluster.yaml:"),
                ("", "cluster.yaml"), ("hosts: 3\n", "cluster.yaml")]:
            self.assertIn(message, self.plan(text, *ask, fails=True))
        self.assertIn("no such operation", self.plan(CLUSTER, "--op", "all-sum", "--bytes", 4, fails=True))


if __name__ == "__main__":
    unittest.main()
