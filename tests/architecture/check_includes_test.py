#!/usr/bin/env python3
"""The include check itself: it must find a planted include against the arrows, in each spelling."""
import pathlib
import tempfile
import unittest

import check_includes


class CheckIncludesTest(unittest.TestCase):
    def violations(self, room, line):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name in check_includes.ROOMS:
                (root / name).mkdir()
            (root / room / "a.h").write_text(f"#pragma once\n{line}\n")
            return list(check_includes.violations(root))

    def test_right_to_left_is_fine(self):
        self.assertEqual(self.violations("serving", '#include "comm/work.h"'), [])
        self.assertEqual(self.violations("comm", '#include "comm/work.h"'), [])
        self.assertEqual(self.violations("comm", '#include <runtime_error.h>'), [])

    def test_left_to_right_is_found(self):
        for line in ['#include "runtime/tensor.h"', '#include <runtime/tensor.h>', '  # include "cohort/runtime/tensor.h"']:
            found = self.violations("comm", line)
            self.assertEqual(len(found), 1, line)
            self.assertIn("comm/a.h:2", found[0])


if __name__ == "__main__":
    unittest.main()
