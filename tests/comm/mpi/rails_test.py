#!/usr/bin/env python3
"""Runs test_comm_rails on a testbed of two hosts with two interfaces each, and breaks one of them in the middle.

  rails_test.py TESTBED PROGRAM         exit code 77: no testbed here
"""
import os
import subprocess
import sys

TESTBED, PROGRAM = sys.argv[1:]
NAME = f"rails-{os.getpid()}"
ENVIRONMENT = {**os.environ, "COHORT_TESTBED": NAME, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def testbed(*arguments):
    return subprocess.run([TESTBED, *arguments], env=ENVIRONMENT, stdin=subprocess.DEVNULL, timeout=60)


def survives(what):
    """On a testbed of its own: Open MPI, by which the ranks meet, may hang where an interface has just come back."""
    up = testbed("up", "--hosts", "2", "--rails", "2", "--rate", "1gbit")
    if up.returncode != 0:
        return up.returncode
    try:
        with subprocess.Popen([TESTBED, "run", "--np", "2", "--", PROGRAM, what, "2", "2"], env=ENVIRONMENT, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as job:
            said = []
            for line in map(str.strip, job.stdout):
                said.append(line)
                if line == "ready":
                    testbed("cut", "host2", "--rail", "1")
                if line == "survived":
                    testbed("heal", "host2", "--rail", "1")
            code = job.wait(timeout=60)
        print(what, said, code)
        return code or int(said != ["ready", "survived"])
    finally:
        testbed("down")


def main():
    return survives("writes") or survives("collectives")


if __name__ == "__main__":
    sys.exit(main())
