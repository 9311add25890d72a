"""An OCI registry for the benchmark: Debian's docker-registry, where it is installed."""

import os
import shutil
import socket

from devstack.folder import DataFolder, in_url, loopback
from devstack.supervisor import Service, Supervisor


def start(supervisor: Supervisor, folder: DataFolder) -> str:
    """Start the registry and wait for it. Returns its URL, or nothing where it is not installed."""
    program = shutil.which("docker-registry")
    if program is None:
        return ""
    host, port = loopback(), folder.port("registry")
    data = folder.path / "registry"
    data.mkdir(mode=0o700, exist_ok=True)
    configuration = folder.write_private(
        "registry.yml",
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f'storage: {{filesystem: {{rootdirectory: "{data}"}}}}\nhttp: {{addr: "{in_url(host)}:{port}"}}\n',
    )

    def answers() -> bool:
        try:
            with socket.create_connection((host, port), timeout=1):
                return True
        except OSError:
            return False

    supervisor.start(
        Service(
            name="registry",
            # It logs each "not found" as an error, and a push asks for what is not there yet.
            argv=["/bin/sh", "-c", 'exec "$0" serve "$1" 2>"$2"', program, str(configuration), str(data / "log")],
            env={"PATH": os.defpath, "LC_ALL": "C", "OTEL_TRACES_EXPORTER": "none"},
            cwd=data,
            ready=answers,
        )
    )
    supervisor.wait_ready("registry")
    return f"http://{in_url(host)}:{port}"
