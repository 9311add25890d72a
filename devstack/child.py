"""What every supervised process runs through for an instant before it becomes itself (`exec`).

Three things have to happen after the fork and before the program starts, and doing them in a `preexec_fn` is unsafe in
a process that has threads, as the supervisor has:

- ask the kernel to signal this process when the supervisor dies (Linux; elsewhere only the guard does that),
- become somebody else: PostgreSQL refuses to run as root. In a user namespace that maps root to `nobody` it believes it
  is `nobody` while its files stay root's, so nothing is chowned and a 0700 folder stays closed. Where namespaces are
  switched off it is `nobody` for real,
- undo what the supervisor inherited, above all ignored signals.

Changing the user clears the death signal, hence the order. Runs with `python -I -S`: standard library only.
"""

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Sequence

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1


def command(
    argv: Sequence[str], *, death_signal: signal.Signals, namespace_user: int | None = None, user: int | None = None
) -> list[str]:
    """`argv` wrapped so that it runs through this module as a child of the calling process."""
    wrapped = [sys.executable, "-I", "-S", __file__, "--parent", str(os.getpid()), "--death-signal", str(+death_signal)]
    if namespace_user is not None:
        wrapped += ["--namespace-user", str(namespace_user)]
    if user is not None:
        wrapped += ["--user", str(user)]
    return [*wrapped, "--", *argv]


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _enter_user_namespace(libc: ctypes.CDLL, user: int) -> None:
    outer_user, outer_group = os.geteuid(), os.getegid()
    _checked(libc.unshare(CLONE_NEWUSER))
    # user_namespaces(7): without CAP_SETGID outside, setgroups has to be given up before a group may be mapped.
    for name, content in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {outer_user} 1"),
        ("gid_map", f"{user} {outer_group} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(content)


def main() -> None:
    """Prepare this process as told and become the given program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--death-signal", type=int, required=True)
    parser.add_argument("--namespace-user", type=int)
    parser.add_argument("--user", type=int)
    parser.add_argument("argv", nargs="+")
    arguments = parser.parse_args()

    try:
        if arguments.user is not None:
            os.setgroups([])
            os.setgid(arguments.user)
            os.setuid(arguments.user)
        if sys.platform == "linux":
            libc = ctypes.CDLL(None, use_errno=True)
            if arguments.namespace_user is not None:
                _enter_user_namespace(libc, arguments.namespace_user)
            _checked(libc.prctl(PR_SET_PDEATHSIG, arguments.death_signal, 0, 0, 0))
        if os.getppid() != arguments.parent:
            sys.exit("the supervisor is gone")  # It died before prctl, which would not have told us.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(arguments.argv[0], arguments.argv)  # noqa: S606 - becoming another program is the point
    except OSError as exc:
        sys.exit(f"cannot start {os.path.basename(arguments.argv[0])}: {exc}")


if __name__ == "__main__":
    main()
