#!/usr/bin/python3
"""Runs a program under the system call filter of a unit, as systemd would make it: what the unit does not
allow fails with EPERM. It needs Debian's systemd, for what its groups hold, and python3-seccomp.

    tests/service-filter.py host/scutwork.service PROGRAM [ARGUMENT...]
"""

import errno
import os
import pathlib
import subprocess
import sys

import seccomp


def calls(group):
    """The system calls in a group, and in the groups that it holds."""
    if not group.startswith("@"):
        return {group}
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True
    )
    words = [line.strip() for line in listed.stdout.splitlines()]
    inner = [word for word in words if word and not word.startswith("#") and word != group]
    return set().union(*(calls(word) for word in inner))


unit = pathlib.Path(sys.argv[1])
filters = [
    line.removeprefix("SystemCallFilter=")
    for line in unit.read_text().splitlines()
    if line.startswith("SystemCallFilter=")
]
# What the first one is decides that the rest is forbidden, and systemd always allows @default.
allowed = calls("@default")
for line in filters:
    for word in line.lstrip("~").split():
        allowed = allowed - calls(word) if line.startswith("~") else allowed | calls(word)

program = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
known = 0
for call in allowed:
    try:
        program.add_rule(seccomp.ALLOW, call)
        known += 1
    except (RuntimeError, ValueError, OSError):
        pass  # another machine's
if known < 200:
    sys.exit(f"only {known} system calls of {len(allowed)} are known")
program.load()
os.execv(sys.argv[2], sys.argv[2:])
