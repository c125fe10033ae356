#!/usr/bin/env python3
"""The scripts of tools/ and their options. Nothing is run."""
import pathlib
import subprocess
import sys
import unittest

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
SUBCOMMANDS = {"testbed": ["up", "with"], "faults": ["hurt", "churn"]}


class ScriptsTest(unittest.TestCase):
    def test_options_are_written_out(self):
        """An abbreviation means another option once one more begins with it."""
        scripts = [path for path in TOOLS.iterdir() if path.is_file() and "ArgumentParser(" in path.read_text() and
                   path.name != "compare_pytorch.py"]  # it looks for PyTorch first
        self.assertGreaterEqual(len(scripts), 10)
        for path in scripts:
            for words in [[], *([name] for name in SUBCOMMANDS.get(path.name, []))]:
                with self.subTest(script=path.name, words=words):
                    done = subprocess.run([sys.executable, path, *words, "--hel"], stdin=subprocess.DEVNULL, capture_output=True,
                                          text=True, timeout=60)
                    self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
                    self.assertIn("usage:", done.stderr)


if __name__ == "__main__":
    unittest.main()
