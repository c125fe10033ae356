"""The bundle on a machine that has nothing: a root with a shell, /proc, /sys, /dev, /tmp, and the bundle."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from harness import COHORT, CohortTest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUSYBOX = pathlib.Path("/bin/busybox")

# What makes the root a machine, in a mount and process namespace of its own; then the test's own words.
ENTER = """\
set -e
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
exec chroot "$1" /bin/sh -c "$2"
"""


def why_not():
    if os.geteuid() != 0:
        return "needs root, to make a root folder a machine"
    if not BUSYBOX.exists() or subprocess.run(["ldd", BUSYBOX], capture_output=True).returncode == 0:
        return "needs a static busybox (busybox-static)"
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode != 0:
        return "the kernel refuses namespaces here"
    return None


@unittest.skipIf(why_not(), why_not())
class BundleTest(CohortTest):
    @classmethod
    def setUpClass(cls):
        cls.machine = pathlib.Path(tempfile.mkdtemp(prefix="cohort-machine-"))
        cls.addClassCleanup(shutil.rmtree, cls.machine, ignore_errors=True)
        for name in ("bin", "proc", "sys", "dev", "tmp", "opt"):
            (cls.machine / name).mkdir()
        shutil.copy(BUSYBOX, cls.machine / "bin" / "sh")
        made = subprocess.run([ROOT / "tools" / "bundle", "--build", pathlib.Path(COHORT).parents[1], "--output",
                               cls.machine / "opt" / "cohort"], capture_output=True, text=True, timeout=300)
        assert made.returncode == 0, made.stdout + made.stderr
        cls.said = made.stderr

    def setUp(self):
        super().setUp()
        shutil.rmtree(self.folder)
        self.folder = self.machine / "work"
        self.folder.mkdir()
        self.addCleanup(shutil.rmtree, self.folder)

    def enter(self, words, **more):
        # PATH as a login has it: nothing but the bundle is there.
        environment = {"PATH": "/opt/cohort/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "OMPI_ALLOW_RUN_AS_ROOT": "1",
                       "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1"}
        return subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c",
                                 'PATH=$PATH:/usr/sbin:/usr/bin; ' + ENTER, "sh", self.machine, "cd /work; " + words],
                                env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, **more)

    def within(self, words):
        process = self.enter(words)
        said, _ = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0, said)
        return said

    def cohort(self, *arguments, **_):
        return self.within(" ".join(["cohort", *map(str, arguments)]).replace("%", "'%'"))

    def processes(self):
        """pid -> command line of those on that machine."""
        found = {}
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(path / "root") == str(self.machine):
                    found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has ended
        return found

    def test_it_has_no_driver_and_every_licence(self):
        bundle = self.machine / "opt" / "cohort"
        names = {file.name for file in (bundle / "libraries").iterdir()}
        self.assertFalse([name for name in names if re.match("lib(cuda|nvidia-.*)\\.so", name)])
        self.assertLessEqual({"libc.so.6", "libmpi.so.40", "libucp.so.0", "ucx", "openmpi"}, names)
        licences = {file.name for file in (bundle / "licenses").iterdir()}
        self.assertLessEqual({"cohort", "libc6", "libopenmpi3", "libucx0", "openmpi-bin"}, licences)
        self.assertNotIn("no licence", self.said)

    def test_it_trains_alone_and_under_mpirun_and_serves(self):
        version = subprocess.run([COHORT, "--version"], capture_output=True, text=True, check=True).stdout
        self.assertEqual(self.within("cohort --version"), version)
        self.prepare_data()
        self.write_config(steps=2)
        self.cohort("train", "--config", "config.yaml")
        said = self.within("mpirun -np 2 cohort train --config config.yaml --set train.steps=4")
        self.assertIn("on 2 ranks", said)
        self.assertNotIn("failed", said)
        self.assertEqual(sorted(self.losses()), [1, 2, 3, 4])
        self.cohort("generate", "--model", "run/checkpoints/latest", "--prompt", "The", "--max-tokens", 4)
        # busybox has no sleep without a file of that name: the shell waits in a loop.
        said = self.within("cohort serve --model run/checkpoints/latest --listen 127.0.0.1:0 --address-file at & "
                           "while ! [ -s at ]; do :; done; read -r at < at; cohort health --server $at && "
                           "cohort generate --server $at --prompt The --max-tokens 4 --json; failed=$?; "
                           "kill $!; wait $! && exit $failed")
        self.assertIn("token_ids", said)
        self.assertIn("drained", said)

    def test_an_elastic_training_starts_its_keeper_and_coordinator(self):
        self.prepare_data()
        self.write_config(steps=100000)
        process = self.enter("mpirun --enable-recovery -np 2 cohort train --elastic --config config.yaml")
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        end = time.time() + 60

        def seen(words):
            return [pid for pid, line in self.processes().items() if words in line]
        metrics = self.folder / "run" / "metrics.jsonl"
        while not (metrics.exists() and len(self.losses()) >= 2):
            self.assertTrue(process.poll() is None and time.time() < end, "it does not train")
            time.sleep(0.05)
        self.assertEqual(len(seen("libexec/cohort train")), 2)
        self.assertTrue(seen("libexec/cohort keeper"), self.processes())
        self.assertTrue(seen("libexec/cohort coordinator"), self.processes())
        for pid in seen("libexec/cohort train"):
            self.assertEqual(pathlib.Path(f"/proc/{pid}/comm").read_text(), "cohort\n")
            os.kill(pid, signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, said)
        self.assertIn("saved", said)


if __name__ == "__main__":
    unittest.main()
