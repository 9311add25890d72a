"""Which server is meant and what opens it: contexts in `config.yaml`, their tokens beside it in a file of mode 0600.

Both are in `$XDG_CONFIG_HOME/opencrane` (XDG Base Directory Specification). Flags go before environment variables, and
those before the current context. A token is only ever sent to the server that it was kept for.
"""

import contextlib
import os
import stat
import tempfile
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cli.errors import CliError, Exit, UsageError

URL, TOKEN, CONTEXT, CA_FILE = "OPENCRANE_URL", "OPENCRANE_TOKEN", "OPENCRANE_CONTEXT", "OPENCRANE_CA_FILE"
NOT_SIGNED_IN = "opencrane login"


@dataclass
class Settings:
    """What the global options say; empty where they say nothing."""

    context: str = ""
    server: str = ""
    ca_file: str = ""
    insecure_http: bool = False
    timeout: float = 60.0
    output: str = ""
    no_headers: bool = False
    no_color: bool = False
    verbose: bool = False


@dataclass
class Context:
    """One server, as kept under a name."""

    server: str
    ca_file: str = ""
    insecure_http: bool = False

    def stored(self) -> dict[str, Any]:
        found: dict[str, Any] = {"server": self.server}
        if self.ca_file:
            found["caFile"] = self.ca_file
        if self.insecure_http:
            found["insecureHttp"] = True
        return found


@dataclass(frozen=True)
class Target:
    """The server that a command is for.

    Attributes:
        server: `https://host[:port][/path]`, without a slash at the end.
        token: empty for nobody.
        context: the context's name; empty where flags or the environment name the server.
    """

    server: str
    token: str = field(repr=False)
    ca_file: str
    context: str


def folder() -> Path:
    """Where contexts are kept."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    # The specification has relative paths ignored.
    base = Path(home) if os.path.isabs(home) else Path.home() / ".config"
    return base / "opencrane"


class Store:
    """The two files. Reading what is not there gives nothing; writing replaces a file whole."""

    def __init__(self) -> None:
        self.config_path = folder() / "config.yaml"
        self.tokens_path = folder() / "tokens.yaml"
        config = _read(self.config_path)
        self.current: str = str(config.get("current") or "")
        self.contexts: dict[str, Context] = {}
        for name, value in _mapping(self.config_path, config.get("contexts")).items():
            entry = _mapping(self.config_path, value)
            self.contexts[str(name)] = Context(
                str(entry.get("server") or ""), str(entry.get("caFile") or ""), bool(entry.get("insecureHttp"))
            )

    def token(self, name: str) -> str:
        """The token of a context; empty when there is none."""
        return str(_mapping(self.tokens_path, _read(self.tokens_path).get("tokens")).get(name) or "")

    def is_exposed(self) -> bool:
        """Whether others may read the tokens."""
        try:
            return bool(stat.S_IMODE(self.tokens_path.stat().st_mode) & 0o077)
        except OSError:
            return False

    def keep(self, name: str, context: Context, token: str = "") -> None:
        """Write a context and make it the current one; an empty token forgets the old one."""
        self.contexts[name] = context
        self.current = name
        self._write_tokens(name, token)
        self.write()

    def forget(self, name: str) -> None:
        """Drop a context and its token."""
        self.contexts.pop(name, None)
        self.forget_token(name)
        if self.current == name:
            self.current = ""
        self.write()

    def forget_token(self, name: str) -> None:
        """Drop a context's token."""
        if self.token(name):
            self._write_tokens(name, "")

    def write(self) -> None:
        """Write the contexts."""
        contexts = {name: context.stored() for name, context in sorted(self.contexts.items())}
        _write(self.config_path, {"current": self.current, "contexts": contexts})

    def _write_tokens(self, name: str, token: str) -> None:
        tokens = dict(_mapping(self.tokens_path, _read(self.tokens_path).get("tokens")))
        tokens.pop(name, None)
        if token:
            tokens[name] = token
        if tokens or self.tokens_path.exists():
            _write(self.tokens_path, {"tokens": tokens})


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise CliError(f"cannot read {path}: {_reason(exc)}") from exc
    import yaml

    try:
        return _mapping(path, yaml.safe_load(text))
    except yaml.YAMLError as exc:
        raise CliError(f"{path} is no YAML: {' '.join(str(exc).split())}", hint=f"repair or remove {path}") from exc


def _mapping(path: Path, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CliError(f"{path} does not look like ours", hint=f"repair or remove {path}")
    return value


def _write(path: Path, value: Any) -> None:
    """Replace a file by one of mode 0600, so that nobody ever sees half of it or reads it meanwhile."""
    import yaml

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # made with mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                yaml.safe_dump(value, file, sort_keys=False, allow_unicode=True)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as exc:
        raise CliError(f"cannot write {path}: {_reason(exc)}") from exc


def _reason(exc: Exception) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)


def is_loopback(host: str) -> bool:
    """Whether a URL's host can only be this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def server_url(text: str, *, insecure_http: bool) -> str:
    """A server's address in its normal form.

    Raises:
        UsageError: it is none, or it is plain HTTP to another machine and nobody has said that this is meant.
    """
    if "://" not in text:
        host = text.partition("/")[0].rpartition(":")[0] or text.partition("/")[0]
        text = f"{'http' if is_loopback(host.strip('[]')) else 'https'}://{text}"
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as exc:
        raise UsageError(f"{text} is no address of a server: {exc}") from exc
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or any(each.isspace() for each in text.strip()):
        raise UsageError(f"{text} is no address of a server; one looks like https://opencrane.example.com")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError("a server's address has no user name, query or fragment")
    if parts.scheme == "http" and not insecure_http and not is_loopback(host):
        raise UsageError(
            f"{text} would send the token for everybody on the way to read",
            hint="use https, or say --insecure-http if that is meant",
        )
    shown = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/").removesuffix("/api/v1").rstrip("/")
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}{path}"


def context_name(server: str) -> str:
    """What a context is called when nobody says."""
    return urlsplit(server).netloc.strip("[]").replace("]:", "-").replace(":", "-")


def chosen_context(settings: Settings, store: Store) -> str:
    """The context that flags and environment name, else the current one; empty when there is none.

    Raises:
        CliError: there is no context of that name.
    """
    name = settings.context or os.environ.get(CONTEXT, "") or store.current
    if name and name not in store.contexts:
        known = ", ".join(store.contexts) or "none"
        raise CliError(
            f"there is no context {name}",
            detail=f"There are: {known}.",
            status=Exit.USAGE,
            hint="opencrane context list",
        )
    return name


def target(settings: Settings) -> Target:
    """The server and token that flags, environment and contexts come to.

    Raises:
        CliError: no server is named anywhere, or what is named cannot be used.
    """
    store = Store()
    token = os.environ.get(TOKEN, "").strip()
    server = settings.server or ("" if settings.context else os.environ.get(URL, "").strip())
    ca_file = settings.ca_file or os.environ.get(CA_FILE, "").strip()
    if server:
        server = server_url(server, insecure_http=settings.insecure_http)
        name = next((name for name, each in store.contexts.items() if each.server == server), "")
        context = store.contexts.get(name, Context(server))
    else:
        name = chosen_context(settings, store)
        if not name:
            raise CliError("no server is named", status=Exit.DENIED, hint=f"{NOT_SIGNED_IN} --server URL, or set {URL}")
        context = store.contexts[name]
        server = server_url(context.server, insecure_http=settings.insecure_http or context.insecure_http)
    return Target(server, token or (store.token(name) if name else ""), ca_file or context.ca_file, name)
