#!/usr/bin/env python3
"""The judge of tools/compare_collectives, on rows made up here. Nothing is measured."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "tools" / "compare_collectives"


def row(who, seconds, op="all-reduce", hosts=1, ranks=2, size=8, wire=None, algorithm="ring", chosen=True):
    return {"op": op, "hosts": hosts, "ranks": ranks, "bytes": size, "who": who, "algorithm": algorithm,
            "chosen": chosen, "median_s": seconds, "wire_bytes": wire}


class JudgeTest(unittest.TestCase):
    def judge(self, *rows):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write("".join(json.dumps(one) + "\n" for one in rows))
            file.flush()
            return subprocess.run([sys.executable, SCRIPT, "--rows", file.name], capture_output=True, text=True)

    def verdict(self, done, text):
        lines = [line for line in done.stdout.splitlines() if text in line and line.split()[0] in ("met", "MISSED")]
        self.assertEqual(len(lines), 1, done.stdout + done.stderr)
        return lines[0].split()[0]

    def test_slower_is_by_more_than_a_tenth_and_a_moment(self):
        for cohort, peer, expected in ((1.0e-6, 0.8e-6, "met"), (1.2e-6, 0.8e-6, "MISSED"), (1.05e-3, 1e-3, "met"),
                                       (1.15e-3, 1e-3, "MISSED")):
            done = self.judge(row("cohort", cohort), row("openmpi", peer), row("gloo", 1))
            self.assertEqual(self.verdict(done, "1x2 all-reduce"), expected)
            self.assertEqual(done.returncode, 1)  # no mean of 1.5

    def test_the_fastest_algorithm_of_a_peer_counts_and_medians_over_jobs(self):
        done = self.judge(row("cohort", 1e-3), row("gloo", 5e-3), row("gloo", 2e-3, algorithm="bcube"),
                          row("cohort", 1e-3), row("cohort", 9e-3))
        self.assertEqual(self.verdict(done, "one host, everything: geometric mean against the best peer 2.00"), "met")
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_ratios_are_of_contestants_in_one_job(self):
        # One job is twice as fast as the other for everybody; han was in the fast one, and is as fast as Cohort there.
        rows = [{**row(who, seconds), "job": job} for who, seconds, job in (
            ("cohort", 2e-3, 0), ("openmpi", 2.2e-3, 0), ("cohort", 1e-3, 1), ("openmpi-han", 1e-3, 1))]
        done = self.judge(*rows)
        self.assertEqual(self.verdict(done, "1x2 all-reduce"), "met")
        self.assertIn("ratio 1.00", done.stdout)
        rows[3]["median_s"] = 0.8e-3
        self.assertEqual(self.verdict(self.judge(*rows), "1x2 all-reduce"), "MISSED")

    def test_the_bound_of_the_hierarchical_all_reduce(self):
        # 1 MB on 2x2: each host sends 1 MB: 8.77 ms with headers, and the round trip.
        for cohort, expected in ((10.0e-3, "met"), (10.4e-3, "MISSED")):
            done = self.judge(row("cohort", cohort, hosts=2, ranks=4, size=1 << 20),
                              row("openmpi", 27e-3, hosts=2, ranks=4, size=1 << 20),
                              row("cohort", 0.1e-3, op="send/recv", hosts=2, ranks=4),
                              row("openmpi", 0.05e-3, op="send/recv", hosts=2, ranks=4))
            self.assertEqual(self.verdict(done, "of the bound 8.82 ms"), expected)
            self.assertEqual(self.verdict(done, "against openmpi"), "met")

    def test_the_fewest_bytes_and_the_rate(self):
        size = 16 << 20
        for op, least in (("all-reduce", 2 * size), ("all-to-all", 2 * size)):  # all hosts together, 2x2
            for seconds, wire, expected in ((least / 2 * 8 / 0.92e9, 1.05, "met"), (least / 2 * 8 / 0.85e9, 1.05, "MISSED"),
                                            (least / 2 * 8 / 0.92e9, 1.5, "MISSED")):
                done = self.judge(row("cohort", seconds, op=op, hosts=2, ranks=4, size=size, wire=round(least * wire)),
                                  row("openmpi", 1, op=op, hosts=2, ranks=4, size=size, wire=0))
                self.assertEqual(self.verdict(done, "of the fewest bytes"), expected)

    def test_what_cohort_chose_counts_whatever_it_was(self):
        done = self.judge(row("cohort", 3e-3), row("cohort", 2e-3, algorithm="direct"), row("cohort", 9e-3),
                          row("cohort", 1e-3, algorithm="tree", chosen=False), row("gloo", 2.9e-3))
        self.assertEqual(self.verdict(done, "1x2 all-reduce"), "met")
        self.assertIn("3.00 ms (direct or ring)", done.stdout)

    def test_own_ways_beside_each_other(self):
        size, layout = 16 << 20, {"hosts": 2, "ranks": 8}
        for gain, expected in ((1.31, "met"), (1.29, "MISSED")):
            done = self.judge(row("cohort", gain, size=size, **layout, chosen=False),
                              row("cohort", 1, size=size, **layout, algorithm="ho_ring"))
            self.assertEqual(self.verdict(done, "HO-Ring"), expected)
        for seconds, wire, expected in ((0.39, 26, "met"), (0.41, 26, "MISSED"), (0.39, 28, "MISSED")):
            done = self.judge(row("cohort", 1, size=size, wire=100, **layout),
                              row("cohort", seconds, size=size, wire=wire, **layout, algorithm="int8", chosen=False))
            self.assertEqual(self.verdict(done, "in int8"), expected)
        for leaders, expected in ((0.3, "met"), (0.4, "MISSED")):
            done = self.judge(*(row("cohort", seconds, op="all-to-all", **layout, algorithm=name, chosen=False)
                                for name, seconds in (("pairwise", 1), ("hierarchical", 0.5), ("leaders", leaders))))
            self.assertEqual(self.verdict(done, "a message for a pair of hosts (leaders)"), expected)

    def test_nothing_to_judge_is_a_failure(self):
        self.assertEqual(self.judge().returncode, 1)


if __name__ == "__main__":
    unittest.main()
