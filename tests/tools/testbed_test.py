#!/usr/bin/env python3
"""tools/testbed: hosts that see each other at the rate of their links, faults, and nothing left afterwards."""
import os
import pathlib
import signal
import subprocess
import sys
import unittest

from harness import environment

TESTBED = pathlib.Path(__file__).resolve().parents[2] / "tools" / "testbed"
NAMESPACES = pathlib.Path("/run/netns")
ALLOWED = subprocess.run([TESTBED, "status"], capture_output=True, text=True)

# Takes as many bytes as its argument says, and answers; the other one prints the seconds until then.
RECEIVER = """
import socket, sys
listener = socket.create_server(("", 5555))
print("ready", flush=True)
link, _ = listener.accept()
left = int(sys.argv[1])
while left: left -= len(link.recv(min(left, 1 << 20)))
link.sendall(b"!")
"""
SENDER = """
import socket, sys, time
link = socket.create_connection(("host2", 5555))
data = bytes(int(sys.argv[1]))
begin = time.monotonic()
link.sendall(data)
link.recv(1)
print(time.monotonic() - begin)
"""


def testbed(*arguments, timeout=60):
    return subprocess.run([TESTBED, *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, env=environment())


@unittest.skipIf(ALLOWED.returncode == 77, f"no testbed here: {ALLOWED.stderr.strip()}")
class TestbedTest(unittest.TestCase):
    def setUp(self):
        self.name = f"test-{os.getpid()}"

    def left(self, name):
        listed = [path.name for path in NAMESPACES.glob(f"cohort-{name}-*")]
        listed += [path.name for path in pathlib.Path("/etc/netns").glob(f"cohort-{name}-*")]
        return listed + [str(path) for path in pathlib.Path("/run/cohort-testbed").glob(name)]

    def succeeds(self, *arguments):
        done = testbed(*arguments)
        self.assertEqual(done.returncode, 0, f"{arguments}\n{done.stdout}{done.stderr}")
        return done.stdout

    def up(self, *arguments):
        self.addCleanup(testbed, "down", "--name", self.name)
        self.succeeds("up", "--name", self.name, *arguments)

    def on(self, host, *command):
        return testbed("exec", "--name", self.name, host, "--", *command)

    def reaches(self, sender, receiver):
        return self.on(sender, "ping", "-c", "1", "-W", "0.3", receiver).returncode == 0

    def test_hosts_have_names_and_see_each_other_on_every_rail(self):
        self.up("--hosts", 3, "--rails", 2)
        for host in ("host1", "host2", "host3"):
            self.assertEqual(self.on(host, "uname", "-n").stdout, host + "\n")
            for peer in ("host1", "host2", "host3", "10.77.1.1", "10.77.1.2", "10.77.1.3"):
                self.assertTrue(self.reaches(host, peer), f"{host} to {peer}")
        self.assertEqual(os.uname().nodename, subprocess.run(["uname", "-n"], capture_output=True, text=True).stdout.strip())
        status = self.succeeds("status")
        self.assertIn(f"{self.name}: 3 hosts, 2 rail(s), rate 1gbit", status)
        self.succeeds("down", "--name", self.name)
        self.assertEqual(self.left(self.name), [])

    def test_links_have_their_rate(self):
        self.up("--hosts", 2, "--rate", "100mbit")
        count = 1 << 20
        seconds = []
        for _ in range(3):
            line = [TESTBED, "exec", "--name", self.name, "host2", "--", sys.executable, "-c", RECEIVER, str(count)]
            with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as receiver:
                self.assertEqual(receiver.stdout.readline(), "ready\n")
                seconds.append(float(self.on("host1", sys.executable, "-c", SENDER, str(count)).stdout))
        rate = count * 8 / sorted(seconds)[1]
        self.assertLess(rate, 105e6)    # the bucket passes at once
        self.assertGreater(rate, 50e6)  # of 96 that headers leave; a busy machine may be slow

    def test_one_processor_takes_in_all_of_a_connection(self):
        self.up("--hosts", 2, "--rails", 2)
        for interface in ("eth0", "eth1"):
            mask = self.on("host2", "cat", f"/sys/class/net/{interface}/queues/rx-0/rps_cpus").stdout
            self.assertEqual(int(mask.replace(",", ""), 16), (1 << os.cpu_count()) - 1, interface)
        loose = self.succeeds("with", "--overtaking", "--", "cat", "/sys/class/net/eth0/queues/rx-0/rps_cpus")
        self.assertEqual(int(loose.splitlines()[-1].replace(",", ""), 16), 0)

    def test_the_switch_knows_no_firewall(self):
        self.up("--hosts", 2)
        setting = subprocess.run(["ip", "netns", "exec", f"cohort-{self.name}-switch", "cat",
                                  "/proc/sys/net/bridge/bridge-nf-call-iptables"], capture_output=True, text=True)
        if setting.returncode != 0:
            self.skipTest("no br_netfilter, or none that namespaces have of their own")
        self.assertEqual(setting.stdout.strip(), "0")

    def test_hosts_have_the_congestion_control_that_was_asked_for(self):
        setting = "/proc/sys/net/ipv4/tcp_congestion_control"
        self.up("--hosts", 2, "--congestion", "nosuch,reno")
        self.assertEqual(self.on("host2", "cat", setting).stdout.strip(), "reno")

    def test_faults(self):
        self.up("--hosts", 3)
        for fault, shown in ((("cut", "host2"), "rail 0 cut"), (("drop", "host2", "in"), "rail 0 drops in"),
                             (("drop", "host2", "out"), "rail 0 drops out")):
            self.succeeds(fault[0], "--name", self.name, *fault[1:])
            self.assertIn(f"host2 10.77.0.2 {shown}", self.succeeds("status"))
            self.assertFalse(self.reaches("host1", "host2"), fault)
            self.assertTrue(self.reaches("host1", "host3"), fault)
            self.succeeds("heal", "--name", self.name, "host2")
            # The kernel may take a second to notice a link that is back.
            self.assertTrue(any(self.reaches("host1", "host2") for _ in range(20)), fault)
        self.assertIn("host2 10.77.0.2 whole", self.succeeds("status"))

    def test_one_rail_of_several_fails(self):
        self.up("--hosts", 2, "--rails", 2)
        self.succeeds("cut", "--name", self.name, "host2", "--rail", 1)
        self.assertIn("rail 1 cut", self.succeeds("status"))
        self.assertTrue(self.reaches("host1", "10.77.0.2"))
        self.assertFalse(self.reaches("host1", "10.77.1.2"))
        self.succeeds("heal", "--name", self.name, "host2", "--rail", 1)
        self.assertTrue(any(self.reaches("host1", "10.77.1.2") for _ in range(20)))
        self.assertIn("has 2, from 0 on", testbed("cut", "--name", self.name, "host2", "--rail", 2).stderr)

    def test_a_drop_is_one_way(self):
        self.up("--hosts", 2)
        self.assertTrue(self.reaches("host1", "host2"))  # they know each other's link addresses from here on

        def received(host):  # pings, and not what IPv6 and ARP say by themselves
            names, values = [line.split() for line in self.on(host, "cat", "/proc/net/snmp").stdout.splitlines()
                             if line.startswith("Icmp:")]
            return int(dict(zip(names, values))["InEchos"])

        for way, heard in (("in", False), ("out", True)):
            self.succeeds("drop", "--name", self.name, "host2", way)
            before = {host: received(host) for host in ("host1", "host2")}
            for sender, receiver in (("host1", "host2"), ("host2", "host1")):
                self.on(sender, "ping", "-c", "5", "-i", "0.01", "-W", "0.1", receiver)
            self.assertEqual(received("host2") - before["host2"] >= 5, heard, f"drop {way}: host2 receives")
            self.assertEqual(received("host1") - before["host1"] >= 5, not heard, f"drop {way}: host1 receives")
            self.succeeds("heal", "--name", self.name, "host2")

    def test_mpirun_over_the_hosts(self):
        self.up("--hosts", 2)
        script = "echo $OMPI_COMM_WORLD_RANK $(uname -n)"
        for arguments, expected in ((["--np", 4], ["0 host1", "1 host1", "2 host2", "3 host2"]),
                                    (["--np", 3, "--ranks-per-host", 2], ["0 host1", "1 host1", "2 host2"])):
            lines = self.succeeds("run", "--name", self.name, *arguments, "--", "sh", "-c", script).splitlines()
            self.assertEqual(sorted(lines), expected)

    def test_one_shot(self):
        done = testbed("with", "--hosts", 2, "--rate", "none", "--", "sh", "-c",
                       "echo $COHORT_TESTBED; ping -c 1 -W 1 host2 > /dev/null && exit 7")
        self.assertEqual(done.returncode, 7, done.stderr)
        self.assertEqual(self.left(done.stdout.strip()), [])

    def test_what_killed_runs_leave_is_removed(self):
        for number, swept in ((signal.SIGTERM, False), (signal.SIGKILL, True)):
            line = [TESTBED, "with", "--hosts", "2", "--", "sh", "-c", "echo $COHORT_TESTBED; exec sleep 600"]
            with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
                name = process.stdout.readline().strip()
                self.assertNotEqual(self.left(name), [])
                process.send_signal(number)
                process.wait(timeout=30)
                if swept:
                    self.assertIn("left behind", self.succeeds("status"))
                    self.up("--hosts", 1)
                self.assertEqual(self.left(name), [])

    def test_wrong_arguments_say_so(self):
        self.up("--hosts", 2)
        for arguments, code, message in (
                (["up", "--name", self.name], 1, "is up already"),
                (["exec", "--name", self.name, "host9", "--", "true"], 2, "its hosts are host1 host2"),
                (["exec", "--name", self.name, "host1"], 2, "a command is missing"),
                (["run", "--name", self.name, "--np", 8, "--ranks-per-host", 1, "--", "true"], 2, "do not fit"),
                (["status", "--hosts", "3"], 2, "unrecognized"),
                (["up", "--name", "a/b"], 2, "is not made of"),
                (["up", "--name", self.name + "r", "--rate", "fast"], 2, "--rate fast"),
                (["up", "--name", self.name + "r", "--congestion", "nosuch"], 2, "--congestion nosuch"),
                (["down", "--name", "nosuch"], 1, "there is no testbed 'nosuch'")):
            done = testbed(*arguments)
            self.assertEqual(done.returncode, code, f"{arguments}\n{done.stdout}{done.stderr}")
            self.assertIn(message, done.stderr)
        self.assertEqual(self.left(self.name + "r"), [])


class RightsTest(unittest.TestCase):
    @unittest.skipIf(os.geteuid() != 0, "dropping the rights needs them")
    def test_without_rights_it_says_so(self):
        # The user nobody may not be able to read this interpreter's folder, so it becomes nobody once it runs.
        code = ("import os, runpy, sys; sys.argv = ['testbed', 'up']; testbed = runpy.run_path(sys.path.pop());"
                "os.setresuid(65534, 65534, 65534); sys.exit(testbed['main']())")
        done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.append({str(TESTBED)!r}); {code}"],
                              capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 77, done.stderr)
        self.assertIn("need root", done.stderr)


if __name__ == "__main__":
    unittest.main()
