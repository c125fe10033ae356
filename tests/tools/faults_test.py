#!/usr/bin/env python3
"""tools/faults, its short forms: faults of every kind, and members that come and go, on one host and on the testbed."""
import json
import pathlib
import subprocess
import unittest

from harness import CohortTest, environment

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTBED = subprocess.run([ROOT / "tools" / "testbed", "status"], capture_output=True, text=True)


class FaultsTest(CohortTest):
    def rows(self, *arguments):
        done = subprocess.run([ROOT / "tools" / "faults", *map(str, arguments), "--json", "rows"], cwd=self.folder,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, env=environment())
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return [json.loads(line) for line in (self.folder / "rows").read_text().splitlines()]

    def hurt(self, layout, kinds):
        rows = self.rows("hurt", "--layouts", layout, "--faults", len(kinds))
        self.assertEqual([row["kind"] for row in rows], kinds)
        for row in rows:
            self.assertLessEqual(row["told_s"], row["edited_s"])
            self.assertLessEqual(row["edited_s"], row["works_s"])
            self.assertLessEqual(row["works_s"], row["whole_s"])

    def churn(self, layout):
        row, = self.rows("churn", "--layouts", layout, "--collectives", 500)
        self.assertGreaterEqual(row["collectives"], 500)
        self.assertGreater(row["epochs"], 0)

    def test_one_host(self):
        self.hurt("1x8", ["kill", "stop"])
        self.churn("1x8")

    @unittest.skipIf(TESTBED.returncode == 77, f"no testbed here: {TESTBED.stderr.strip()}")
    def test_two_hosts(self):
        self.hurt("2x4", ["kill", "stop", "cut", "drop-in", "drop-out"])
        self.churn("2x4")

    def test_nothing_tried_is_not_success(self):
        done = subprocess.run([ROOT / "tools" / "faults", "hurt", "--layouts", "1x8", "--kinds", "cut", "--faults", "1"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=environment())
        self.assertEqual(done.returncode, 77, done.stdout + done.stderr)
        self.assertIn("nothing was tried", done.stdout)

    def test_errors_are_read_as_they_are_meant(self):
        script = ("import importlib.machinery as m; f = m.SourceFileLoader('faults', r'%s').load_module();"
                  "print(f.named('UNAVAILABLE: rank 3 was lost: no sign of life [said by rank 6]'),"
                  "f.named('late ranks 1, 12 have not called it (rank 2 edits the group)'))" % (ROOT / "tools" / "faults"))
        done = subprocess.run(["python3", "-B", "-W", "ignore", "-c", script], capture_output=True, text=True)
        self.assertEqual(done.stdout.strip(), "({3}, {6}) ({1, 12}, {2})", done.stderr)


if __name__ == "__main__":
    unittest.main()
