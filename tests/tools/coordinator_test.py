#!/usr/bin/env python3
"""cohort coordinator, killed and started again under clients that go on; and what it refuses."""
import json
import os
import random
import resource
import signal
import socket
import subprocess
import time
import unittest
import urllib.request

from harness import COHORT, CohortTest, environment

CLIENT = os.environ.get("CLUSTER_CLIENT", "cluster_client")


class CoordinatorTest(CohortTest):
    def coordinate(self, *arguments, state="state", listen="127.0.0.1:0"):
        process = self.start("coordinator", "--listen", listen, "--state", state, "--lease", "1s", *arguments,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(self.end, process)
        self.said = ""  # before it is there
        for line in process.stdout:
            if line.startswith("coordinating on "):
                return process, line.split()[-1]
            self.said += line
        self.fail(f"the coordinator did not start: {self.said}")

    def end(self, process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()

    def events(self, state="state"):
        rows = []
        for line in (self.folder / state / "events.jsonl").read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                pass  # a kill in the middle of a line, which is then written anew
        return rows

    def test_it_dies_again_and_again_and_nobody_minds(self):
        members, rounds = 4, 50
        process, address = self.coordinate()
        self.assertEqual((self.folder / "state" / "address").read_text().strip(), address)
        client = subprocess.Popen([CLIENT, address, str(members), str(rounds)], cwd=self.folder, env=environment(),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(lambda: client.poll() is None and client.kill())
        draw, kills = random.Random(1), 0
        end = time.time() + 120
        while client.poll() is None:
            self.assertLess(time.time(), end, "the clients hang")
            time.sleep(draw.uniform(0.05, 0.2))
            if client.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            time.sleep(draw.uniform(0, 0.3))
            process, again = self.coordinate()
            self.assertEqual(again, address)
        said = client.stdout.read()
        client.stdout.close()
        self.assertEqual(client.returncode, 0, said)
        self.assertGreater(kills, 4)
        # Everything happened once, and is told once, in order.
        rows = self.events()
        self.assertEqual([row["revision"] for row in rows], list(range(1, len(rows) + 1)))
        notes = [(row["member"], row["words"]) for row in rows if row["kind"] == "note"]
        self.assertEqual(sorted(notes), sorted((f"member {m}", f"round {r}") for m in range(members)
                                               for r in range(1, rounds + 1)))
        self.assertEqual([row["epoch"] for row in rows if row["kind"] == "epoch"], list(range(1, rounds + 1)))
        self.assertEqual(sum(row["kind"] == "coordinator_started" for row in rows), kills + 1)
        self.assertGreaterEqual(sum(row["kind"] == "fenced" for row in rows), rounds)
        # One line when it goes and one when it is back, from each client, and no more.
        self.assertLessEqual(said.count("is away"), (kills + 1) * (members + 2))

    def test_sigterm_ends_it_cleanly(self):
        process, address = self.coordinate("--metrics", "127.0.0.1:0")
        metrics = process.stdout.readline().split()[-1]
        text = urllib.request.urlopen(metrics, timeout=10).read().decode()
        self.assertIn("cohort:cluster_incarnation 1", text)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=20), 0)
        _, again = self.coordinate()
        self.assertEqual(again, address)
        self.assertEqual([row["kind"] for row in self.events()], ["coordinator_started"] * 2)

    def test_a_port_that_was_taken_meanwhile_is_not_waited_for(self):
        process, address = self.coordinate()
        process.send_signal(signal.SIGKILL)
        process.wait()
        host, port = address.split(":")
        with socket.create_server((host, int(port))):
            _, other = self.coordinate()
        self.assertNotEqual(other, address)
        self.assertEqual((self.folder / "state" / "address").read_text().strip(), other)

    def test_what_cannot_be_is_one_line_that_says_so(self):
        def fails(*arguments):
            return self.fails("coordinator", *arguments)
        self.assertIn("--state", fails("--listen", "127.0.0.1:0"))
        self.assertIn("no port", fails("--listen", "127.0.0.1", "--state", "s"))
        self.assertIn("cannot listen", fails("--listen", "no such host:1", "--state", "s"))
        self.assertIn("duration", fails("--state", "s", "--lease", "soon"))
        self.assertIn("lease", fails("--state", "s", "--lease", "0s"))
        self.assertIn("etcd://HOST:PORT/PREFIX", fails("--state", "etcd://127.0.0.1:2379"))
        self.assertIn("metrics", fails("--state", "s", "--metrics", "nonsense"))
        self.assertFalse((self.folder / "s").exists())
        (self.folder / "file").write_text("text")
        self.assertIn("file", fails("--state", "file"))
        self.assertIn("/proc/nowhere", fails("--state", "/proc/nowhere"))
        etcd = fails("--listen", "127.0.0.1:0", "--state", "etcd://127.0.0.1:1/job")
        self.assertIn("etcd at 127.0.0.1:1 does not answer", etcd)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            error = fails("--listen", "127.0.0.1:%d" % taken.getsockname()[1], "--state", "s")
        self.assertIn("Address already in use", error)
        self.assertEqual(len(error.strip().splitlines()), 1, error)

    def test_one_coordinator_a_folder(self):
        self.coordinate()
        error = self.fails("coordinator", "--listen", "127.0.0.1:0", "--state", "state")
        self.assertIn("another coordinator holds state", error)

    def test_a_damaged_journal_is_left_alone(self):
        process, _ = self.coordinate()
        process.send_signal(signal.SIGTERM)
        process.wait()
        self.coordinate()[0].send_signal(signal.SIGKILL)
        time.sleep(0.2)
        journal = self.folder / "state" / "journal"
        whole = journal.read_bytes()
        for at in (3, 32, 50):  # the first line, the state, the first record
            broken = bytearray(whole)
            broken[at] ^= 1
            journal.write_bytes(broken)
            error = self.fails("coordinator", "--listen", "127.0.0.1:0", "--state", "state")
            self.assertIn("is damaged", error)
            self.assertIn("state/journal", error)
            self.assertEqual(journal.read_bytes(), bytes(broken))
        journal.write_bytes(whole[:-3])  # a write that a crash has torn
        self.coordinate()
        self.assertIn("cut off", self.said)

    def test_a_full_disk_at_the_start(self):
        def small():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        run = subprocess.run([COHORT, "coordinator", "--listen", "127.0.0.1:0", "--state", "state"], cwd=self.folder,
                             env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                             preexec_fn=small)
        self.assertEqual(run.returncode, 1)
        self.assertIn("make room", run.stderr)


if __name__ == "__main__":
    unittest.main()
