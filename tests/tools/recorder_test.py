#!/usr/bin/env python3
"""cohort recorder: who is late, from records of several ranks; broken ones are errors that name the file."""
import json
import unittest

from harness import CohortTest


def record(rank, begun, awaits):
    """A rank of three that has called `begun` barriers and waits in the last one, or has ended them all."""
    operations = []
    for i in range(begun):
        operation = {"number": i, "group": 0, "epoch": 0, "sequence": i, "operation": "barrier", "count": 0,
                     "dtype": "u8", "reduce": "sum", "codec": 0, "digest": 0, "algorithm": "dissemination",
                     "began_ns": 1000 * i + 1}
        if awaits and i == begun - 1:
            operation["awaits"] = awaits
        else:
            operation.update(ended_ns=1000 * i + 2, status="OK")
        operations.append(operation)
    return {"cohort_flight_record": 1, "rank": rank, "size": 3, "host": "a", "pid": 1, "monotonic_ns": 9,
            "unix_ns": 9, "groups": [{"group": 0, "epoch": 0, "begun": begun, "members": [0, 1, 2]}],
            "operations": operations}


class RecorderTest(CohortTest):
    def write(self, name, what):
        (self.folder / name).write_text(json.dumps(what))

    def test_names_the_late_rank(self):
        self.write("0.json", record(0, 5, [2]))
        self.write("2.json", record(2, 4, [1]))
        out = self.cohort("recorder", "0.json", "2.json")
        self.assertIn("late: rank 1, which left no record", out)
        self.assertNotIn("late: rank 2", out)
        self.assertIn("rank 0 is in barrier, operation 4 of group 0 (epoch 0), dissemination", out)

    def test_broken_files_are_named(self):
        self.write("good.json", record(0, 5, [2]))
        (self.folder / "half.json").write_text('{"cohort_flight_record": 1,')
        self.assertIn("half.json: not JSON", self.fails("recorder", "good.json", "half.json"))
        self.assertIn("missing.json", self.fails("recorder", "missing.json"))


if __name__ == "__main__":
    unittest.main()
