#!/usr/bin/env python3
"""cohort top beside an elastic training: what it shows, on a terminal and without one; and who is slow is named."""
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest

from harness import COHORT, MPIRUN, CohortTest, environment

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from elastic_jobs import Slowed


class TopCase(CohortTest):
    def coordinate(self, *arguments):
        process = self.start("coordinator", "--listen", "127.0.0.1:0", "--state", "state", *arguments,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(self.end, process)
        return process, process.stdout.readline().split()[-1]

    def end(self, process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()

    def train(self, address, ranks):
        line = [MPIRUN, "--oversubscribe", "--enable-recovery", "-np", str(ranks), COHORT, "train", "--elastic",
                "--coordinator", address, "--config", "config.yaml"]
        log = open(self.folder / "train.log", "w")
        self.addCleanup(log.close)
        process = subprocess.Popen(line, cwd=self.folder, env=environment(), stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        self.addCleanup(self.end_training, process, address)
        return process

    def end_training(self, process, address):
        # mpirun does not end the ranks of a job that recovers, when it is killed itself; asked, they end with their keeper.
        try:
            pids = [member["pid"] for member in self.top(address)["members"] if member["state"] == "live"]
        except (subprocess.TimeoutExpired, ValueError):
            pids = []

        def send(number):
            for pid in pids:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
        send(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            send(signal.SIGKILL)
        self.end(process)

    def top(self, address):
        done = self.run_cohort("top", "--coordinator", address, "--once", "--json", timeout=30)
        return json.loads(done.stdout)

    def wait_for(self, what, seconds=90):
        end = time.time() + seconds
        while time.time() < end:
            found = what()
            if found:
                return found
            time.sleep(0.1)
        log = self.folder / "train.log"
        self.fail(f"not within {seconds} s: " + (log.read_text()[-2000:] if log.exists() else ""))

    def events(self):
        rows = []
        path = self.folder / "state" / "events.jsonl"
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                pass
        return rows

    def training_at(self, address, step, members):
        def there():
            seen = self.top(address)
            told = [m for m in seen["members"] if m.get("step", 0) >= step and m["rank"] >= 0]
            return seen if seen["epoch"]["members"] == members and len(told) == members else None
        return self.wait_for(there)


class TopTest(TopCase):
    def test_wrong_addresses_end_with_one_line(self):
        for address in ("nowhere", "127.0.0.1:1"):
            error = self.fails("top", "--coordinator", address, "--once")
            self.assertEqual(len(error.splitlines()), 1, error)
            self.assertIn(address, error)
        _, address = self.coordinate()
        self.assertIn("nobody is not here", self.fails("top", "--coordinator", address, "--leave", "nobody"))

    def test_a_training_is_seen_and_a_member_is_asked_to_leave(self):
        _, address = self.coordinate()
        self.prepare_data()
        self.write_config(steps=100000)
        self.train(address, 3)
        seen = self.training_at(address, 3, 3)
        self.assertIn("3 ranks", seen["epoch"]["mesh"])
        self.assertGreater(seen["tokens_per_second"], 0)
        self.assertTrue(all(m["compute_seconds"] > 0 and m["state"] == "live" for m in seen["members"]))
        # Ranks that do the same work wait for each other at times.
        self.assertTrue(any(m["wait_seconds"] > 0 for m in seen["members"]))
        self.wait_for(lambda: any(m["phase"] for m in self.top(address)["members"]))
        screen = self.cohort("top", "--coordinator", address, "--once")
        for words in ("RANK", "3 ranks", "tokens/s", "LATEST EVENTS", seen["members"][0]["name"]):
            self.assertIn(words, screen)
        self.assertNotIn("\x1b", screen)
        leaver = seen["members"][2]["name"]
        self.assertIn(leaver, self.cohort("top", "--coordinator", address, "--leave", leaver))
        def gone():
            after = self.top(address)
            return "2 ranks" in after["epoch"]["mesh"] and not any(
                m["name"] == leaver and m["state"] == "live" for m in after["members"])
        self.wait_for(gone)

    def test_a_terminal_is_given_back_and_a_coordinator_comes_back(self):
        coordinator, address = self.coordinate()
        main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
        top = subprocess.Popen([COHORT, "top", "--coordinator", address, "--interval", "0.2"], cwd=self.folder,
                               env=environment(), stdin=other, stdout=other, stderr=other, start_new_session=True)
        self.addCleanup(lambda: top.poll() is None and top.kill())
        os.close(other)
        seen = ""

        def shows(words, seconds=20):
            nonlocal seen
            end = time.time() + seconds
            while words not in seen:
                self.assertLess(time.time(), end, f"{words!r} is not in {seen[-500:]!r}")
                if select.select([main], [], [], 0.1)[0]:
                    seen += os.read(main, 1 << 16).decode()
        shows("no epoch yet")
        self.assertTrue(seen.startswith("\x1b[?1049h\x1b[?25l"))
        # Lines are never longer than the terminal is wide.
        for line in re.sub("\x1b\\[[?0-9]*[A-Za-z]", "", seen.split("\x1b[H")[-1]).splitlines():
            self.assertLessEqual(len(line), 60, line)
        seen = ""
        fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        shows("coordinator 1 at " + address)  # there was no room for it
        seen = ""
        coordinator.send_signal(signal.SIGKILL)
        coordinator.wait()
        shows("is away since")
        seen = ""
        port = address.rsplit(":", 1)[1]
        again = self.start("coordinator", "--listen", "127.0.0.1:" + port, "--state", "state", stdout=subprocess.DEVNULL)
        self.addCleanup(self.end, again)
        shows("coordinator 2 at")
        seen = ""
        top.send_signal(signal.SIGINT)
        shows("\x1b[?25h\x1b[?1049l")
        self.assertEqual(top.wait(timeout=10), 0)
        os.close(main)

    def test_without_a_terminal_it_writes_lines(self):
        coordinator, address = self.coordinate()
        top = self.start("top", "--coordinator", address, "--interval", "0.1", stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.end, top)
        self.assertIn("coordinator_started", top.stdout.readline())
        self.assertIn("no epoch yet", top.stdout.readline())
        coordinator.kill()
        line = ""
        while "away" not in line:
            line = top.stdout.readline()
            self.assertTrue(line)
        top.send_signal(signal.SIGTERM)
        self.assertEqual(top.wait(timeout=10), 0)


class StragglerTest(TopCase):
    def train_four(self, address, **elastic):
        """Steps of some tenths of a second, in which a rank is stopped many times."""
        self.prepare_data()
        (self.folder / "config.yaml").write_text(json.dumps({
            "output": "run",
            "model": {"model_type": "llama", "hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4},
            "data": {"train": ["data"], "sequence_length": 64},
            "train": {"steps": 100000, "global_batch": 64, "micro_batch": 4, "dtype": "f32", "threads": 1},
            "parallel": {"sharding": "zero-1"}, "metrics": {"tensorboard": False}, "elastic": elastic}))
        self.train(address, 4)
        return self.training_at(address, 20, 4)

    def slow(self, pid):
        # Where ranks share cores it has more of them while the others wait for it: half the speed takes more than half
        # the time.
        slowed = Slowed(pid, 1 / 2 if (os.cpu_count() or 1) >= 4 else 2 / 3)
        self.addCleanup(slowed.end)
        return slowed

    def of_kind(self, kind, subject):
        return [e for e in self.events() if e["kind"] == kind and e.get("subject") == subject]

    def test_a_rank_at_half_its_speed_is_named_within_ten_steps(self):
        _, address = self.coordinate()
        seen = self.train_four(address)
        victim = seen["members"][2]
        slowed = self.slow(victim["pid"])
        begun = max(self.losses())
        named = self.wait_for(lambda: [e for e in self.events() if e["kind"] == "straggler"])
        self.assertEqual(named[0]["subject"], victim["name"], named)
        self.assertEqual((named[0]["rank"], named[0]["host"]), (victim["rank"], victim["host"]))
        self.assertLessEqual(named[0]["step"] - begun, 10, named)
        self.assertIn("times as long as the others", named[0]["words"])
        members = {m["name"]: m for m in self.top(address)["members"]}
        self.assertIn("straggler", members[victim["name"]]["verdict"])
        # The others wait for it, which is not their computing.
        others = [m for name, m in members.items() if name != victim["name"]]
        self.assertTrue(all(m["wait_seconds"] > 0 for m in others), members)
        slowed.end()
        self.wait_for(lambda: self.of_kind("well", victim["name"]))
        self.assertFalse(self.of_kind("eviction", victim["name"]))

    def test_a_straggler_is_evicted_and_comes_back(self):
        _, address = self.coordinate()
        seen = self.train_four(address, stragglers="evict", straggler_steps=8, straggler_return_seconds=10)
        victim = seen["members"][1]
        slowed = self.slow(victim["pid"])
        named = self.wait_for(lambda: self.of_kind("straggler", victim["name"]))
        went = self.wait_for(lambda: self.of_kind("eviction", victim["name"]))
        self.assertGreaterEqual(went[0]["step"] - named[0]["step"], 8)
        self.assertIn("elastic.stragglers is evict; it asks to be taken in again in 10 s", went[0]["words"])
        # As if it had been asked to: nobody is lost, and the others go on with all of the state.
        self.wait_for(lambda: [e for e in self.events() if e["kind"] == "member_left" and e["member"] == victim["name"]])
        self.wait_for(lambda: self.top(address)["epoch"]["members"] == 3)
        self.assertNotIn("lost", (self.folder / "train.log").read_text())
        slowed.end()
        # The same process, as another member.
        back = self.wait_for(lambda: [m for m in self.top(address)["members"]
                                      if m["pid"] == victim["pid"] and m["rank"] >= 0 and m["state"] == "live"])
        self.assertNotEqual(back[0]["name"], victim["name"])
        self.assertEqual(self.top(address)["epoch"]["members"], 4)
        steps = sorted(self.losses())
        self.assertEqual(steps, list(range(1, len(steps) + 1)))


class VerdictTest(TopCase):
    """Who is dead and who is stopped, told apart by those on its host."""

    def test_the_dead_and_the_stopped_are_told_apart(self):
        _, address = self.coordinate("--metrics", "127.0.0.1:0")
        self.prepare_data()
        self.write_config(steps=100000)
        self.train(address, 4)
        members = self.training_at(address, 3, 4)["members"]
        dead, stopped = members[3], members[1]
        os.kill(dead["pid"], signal.SIGKILL)

        def found(kind, member):
            return [e for e in self.events() if e["kind"] == kind and e.get("subject") == member["name"]]
        event = self.wait_for(lambda: found("dead", dead))[0]
        self.assertEqual((event["rank"], event["host"]), (dead["rank"], dead["host"]))
        self.assertIn("its process is gone", event["words"])
        os.kill(stopped["pid"], signal.SIGSTOP)
        try:
            event = self.wait_for(lambda: found("stopped", stopped))[0]
        finally:
            os.kill(stopped["pid"], signal.SIGCONT)
        self.assertIn("a signal has stopped its process", event["words"])
        self.wait_for(lambda: found("well", stopped))
        # It asks to be taken in again.
        self.wait_for(lambda: self.top(address)["epoch"]["members"] == 3)
        for kind in ("cut_off", "straggler"):
            self.assertFalse([e for e in self.events() if e["kind"] == kind])
        for member in (dead, stopped):
            self.assertEqual(len(found("dead", member)) + len(found("stopped", member)), 1)


if __name__ == "__main__":
    unittest.main()
