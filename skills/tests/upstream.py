"""Other people's services for tests of sources: a git repository over smart HTTP, and an MCP registry."""

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_ENVIRONMENT = {
    "PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "tests", "GIT_AUTHOR_EMAIL": "tests@example.com", "GIT_COMMITTER_NAME": "tests",
    "GIT_COMMITTER_EMAIL": "tests@example.com", "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}  # fmt: skip

Answer = tuple[int, dict[str, str], bytes]


class Repository:
    """A repository to commit to, with a bare twin that is served."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.bare = folder / "served" / "skills.git"
        self.bare.parent.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", str(self.work), cwd=folder)
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.bare), cwd=folder)

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=cwd or self.work, env=_ENVIRONMENT, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, files: dict[str, str | bytes | None], *, branch: str = "main") -> str:
        """Write (None: remove) files and push; returns the commit."""
        if branch != "main":
            self.git("checkout", "--quiet", "-B", branch)
        for name, content in files.items():
            path = self.work / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message=a change")
        return self.push(branch)

    def push(self, branch: str = "main") -> str:
        self.git("push", "--quiet", "--force", str(self.bare), f"HEAD:refs/heads/{branch}")
        commit = self.git("rev-parse", "HEAD")
        if branch != "main":
            self.git("checkout", "--quiet", "main")
        return commit


class Upstream:
    """An HTTP server: `/git/…` is served by git's own http-backend, the rest by `answers`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.answers: Callable[[str, dict[str, list[str]]], Answer] = lambda path, query: (404, {}, b"")
        # What comes instead of the repository.
        self.twist: Callable[[str], Answer | None] = lambda path: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(f"{self.command} {self.path}")
                outer.headers.append(dict(self.headers))
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                parts = urlsplit(self.path)
                if parts.path.startswith("/git/"):
                    status, headers, out = outer.twist(self.path) or outer._git(self, parts.path[4:], parts.query, body)
                else:
                    status, headers, out = outer.answers(parts.path, parse_qs(parts.query))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(out)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(out)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _git(self, handler: BaseHTTPRequestHandler, path: str, query: str, body: bytes) -> Answer:
        environment = _ENVIRONMENT | {
            "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1", "REQUEST_METHOD": handler.command,
            "PATH_INFO": path, "QUERY_STRING": query, "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)), "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""), "REMOTE_ADDR": "127.0.0.1",
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=False)
        head, _, out = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        return status, headers, out

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def upstream_in(folder: Path) -> Iterator[tuple[Upstream, Repository]]:
    repository = Repository(folder)
    server = Upstream(repository.bare.parent)
    try:
        yield server, repository
    finally:
        server.close()


OFFICIAL = "io.modelcontextprotocol.registry/official"


def entry(name: str, version: Any = "1.0.0", **more: Any) -> dict[str, Any]:
    """One entry as the public registry's API gives it."""
    server: dict[str, Any] = {
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-10-17/server.schema.json",
        "name": name,
        "description": f"What {name} does",
        "version": version,
        "repository": {"url": f"https://github.com/{name}", "source": "github"},
        "remotes": [{"type": "streamable-http", "url": f"https://{name.partition('/')[2]}.example.com/mcp"}],
    } | more
    meta = {
        OFFICIAL: {
            "status": "active", "publishedAt": "2025-09-10T12:00:00.000000Z",
            "updatedAt": "2025-09-10T12:00:00.000000Z", "isLatest": True,
        }
    }  # fmt: skip
    return {"server": server, "_meta": meta}


def registry_of(entries: list[dict[str, Any]], page: int = 2) -> Callable[[str, dict[str, list[str]]], Answer]:
    """Answers as `/v0/servers` does, in pages."""

    def answer(path: str, query: dict[str, list[str]]) -> Answer:
        if path != "/v0/servers":
            return 404, {}, b'{"title": "Not Found", "status": 404}'
        after = query.get("cursor", [""])[0]
        names = [each["server"]["name"] for each in entries]
        start = names.index(after) + 1 if after else 0
        shown = entries[start : start + page]
        metadata: dict[str, Any] = {"count": len(shown)}
        if start + page < len(entries):
            metadata["nextCursor"] = shown[-1]["server"]["name"]
        body = json.dumps({"servers": shown, "metadata": metadata}).encode()
        return 200, {"Content-Type": "application/json"}, body

    return answer
