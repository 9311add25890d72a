"""Signing in, by the device grant (RFC 8628) or with a token, signing out, and contexts."""

import contextlib
import os
import platform
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from cli import __version__, config
from cli.config import Context, Settings, Store, Target
from cli.errors import CliError, Exit, UsageError
from cli.output import column
from cli.session import Session
from cli.spec import Arg, Flag, Noun, Params, Verb
from cli.verbs import YES

if TYPE_CHECKING:
    from cli.client import Client

SLOW_DOWN_SECONDS = 5.0  # RFC 8628, 3.5

# --- Login ------------------------------------------------------------------------------------------------------------


def _login(session: Session, params: Params) -> None:
    settings, store = session.settings, Store()
    name, context = _wanted(settings, store, params)
    if params["with_token"]:
        if sys.stdin.isatty():
            session.out.note("Reading the token from the terminal; end with Ctrl-D.")
        token = sys.stdin.read().strip()
        if not token:
            raise UsageError("no token on standard input")
    else:
        token = _device_grant(session, context, no_browser=params["no_browser"])
    with _client(settings, context, token) as client:
        me = client.get("/auth/me").data
    if not me.get("authenticated"):
        raise CliError("the server does not take the token", status=Exit.DENIED)
    old = store.token(name) if name in store.contexts else ""
    store.keep(name, context, token)
    if old and old != token:
        # What nobody can use any more should not stay good.
        with contextlib.suppress(CliError), _client(settings, context, old) as client:
            client.request("POST", "/auth/revoke")
    if session.out.is_for_people:
        session.out.note(f"Signed in to {context.server} as {_who(me)}; context {name}.")
        if os.environ.get(config.TOKEN):
            session.out.note(f"{config.TOKEN} is set and goes before it.")
    else:
        session.out.thing(me, name)


def _wanted(settings: Settings, store: Store, params: Params) -> tuple[str, Context]:
    """Which server to sign in to, and what it is to be called."""
    given = settings.server or os.environ.get(config.URL, "").strip()
    # A name that there is not yet is the new context's.
    name = params["name"] or (settings.context if settings.context not in store.contexts or not given else "")
    if not given:
        known = settings.context or config.chosen_context(Settings(), store)
        if known not in store.contexts:
            raise UsageError("which server?", hint=f"{config.NOT_SIGNED_IN} --server https://opencrane.example.com")
        context = store.contexts[known]
        context = Context(
            config.server_url(context.server, insecure_http=context.insecure_http or settings.insecure_http),
            settings.ca_file or context.ca_file,
            context.insecure_http or settings.insecure_http,
        )
        return params["name"] or known, context
    server = config.server_url(given, insecure_http=settings.insecure_http)
    ca_file = settings.ca_file or os.environ.get(config.CA_FILE, "")
    known = next((each for each, context in store.contexts.items() if context.server == server), "")
    context = Context(server, os.path.abspath(ca_file) if ca_file else "", settings.insecure_http)
    return name or known or config.context_name(server), context


def _client(settings: Settings, context: Context, token: str, agent: str = "") -> "Client":
    from cli.client import AGENT, Client

    found = Target(context.server, token, context.ca_file, "")
    return Client(found, timeout=settings.timeout, verbose=settings.verbose, agent=agent or AGENT)


def _device_grant(session: Session, context: Context, *, no_browser: bool) -> str:
    """Have a person approve this program in a browser; returns the token."""
    agent = f"opencrane/{__version__} ({socket.gethostname()}; {platform.system()})"
    with _client(session.settings, context, "", agent) as client:
        codes = client.request("POST", "/auth/device").data
        place = codes["verificationUri"]
        address = place if "://" in place else f"{context.server}{place}"
        session.out.note(f"Open   {address}\nand see that it shows the code {codes['userCode']} before you approve.")
        if not no_browser and session.can_ask:
            _open(address)
        session.out.note(f"Waiting for you, {codes['expiresIn'] // 60} minutes at most; Ctrl-C gives up.")
        return _poll(client, codes)


def _poll(client: "Client", codes: Any) -> str:
    """Ask for the token until somebody has decided (RFC 8628, 3.4 and 3.5)."""
    interval, end = float(codes["interval"]), time.monotonic() + float(codes["expiresIn"])
    query = {"deviceCode": codes["deviceCode"]}
    while time.monotonic() < end:
        time.sleep(interval)
        try:
            # Once: what is too fast here is no passing trouble, but a reason to slow down.
            answer = client.request("GET", "/auth/device/token", query=query, tries=1)
        except CliError as exc:
            if exc.code == "RATE_LIMITED":
                interval += SLOW_DOWN_SECONDS
                continue
            if exc.code == "DEVICE_GRANT_EXPIRED":
                if exc.detail == "access_denied":
                    raise CliError("the request was refused", status=Exit.DENIED) from exc
                break
            # The connection may come back before the code expires.
            if exc.status is not Exit.UNAVAILABLE:
                raise
            interval *= 2
            continue
        if answer.status == 200:
            return str(answer.data["token"])
    raise CliError("nobody approved in time", status=Exit.DENIED, hint=config.NOT_SIGNED_IN)


def _open(address: str) -> None:
    """Open a page in a browser, where there is one; what it prints must not get among ours."""
    import subprocess

    command = {"Darwin": "open"}.get(platform.system(), "xdg-open")
    if platform.system() == "Linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    with contextlib.suppress(OSError):
        subprocess.Popen(  # noqa: S603 - the address is one argument, and no shell is there
            [command, address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


LOGIN = Verb(
    "login",
    "Sign in to a server and keep it as a context.",
    _login,
    (
        Flag("--with-token", "Read a token from standard input, instead of asking for one in a browser.", switch=True),
        Flag("--name", "What to call the context; the server's name, if absent.", metavar="NAME"),
        Flag("--no-browser", "Only show the address.", switch=True),
    ),
    ("POST /auth/device", "GET /auth/device/token", "GET /auth/me", "POST /auth/revoke"),
    about="Shows an address and a code. Open it anywhere, sign in, compare the code, and approve."
    f"\n\nFor scripts: set {config.URL} and {config.TOKEN} instead.",
    examples=(
        "login --server https://opencrane.example.com",
        "login --server https://opencrane.example.com --with-token < token.txt",
    ),
)

# --- Logout and whoami ------------------------------------------------------------------------------------------------


def _logout(session: Session, params: Params) -> None:
    store = Store()
    name = config.chosen_context(session.settings, store)
    token = store.token(name) if name else ""
    if not token:
        raise CliError("nobody is signed in here", status=Exit.DENIED, hint="opencrane context list")
    context = store.contexts[name]
    problem = None
    try:
        with _client(session.settings, context, token) as client:
            client.request("POST", "/auth/revoke")
        said = "the token is revoked"
    except CliError as exc:
        # A token that is good no more needs no revoking, and one from the server's settings cannot be.
        said = "the token had ended already" if exc.code == "UNAUTHORIZED" else "the token goes on being good"
        problem = exc if exc.code not in ("UNAUTHORIZED", "FORBIDDEN") else None
    if problem is not None and not params["force"]:
        raise CliError(
            problem.message,
            status=problem.status,
            detail="The token has not been revoked and is kept.",
            hint="opencrane logout --force forgets it all the same",
        ) from problem
    store.forget_token(name)
    session.out.note(f"Signed out of {context.server}; {said}.")


LOGOUT = Verb(
    "logout",
    "Sign out: the token is revoked and forgotten.",
    _logout,
    (Flag("--force", "Forget the token even if it cannot be revoked.", switch=True),),
    ("POST /auth/revoke",),
    shows=False,
)


def _who(me: Any) -> str:
    user = me.get("user") or {}
    email = f" <{user['email']}>" if user.get("email") and user["email"] != user.get("name") else ""
    return f"{user.get('name') or user.get('sub')}{email}, role {me['role']}"


def _whoami(session: Session, params: Params) -> None:
    client = session.client
    me = client.get("/auth/me").data
    if not me.get("authenticated"):
        raise CliError(f"not signed in to {client.target.server}", status=Exit.DENIED, hint=config.NOT_SIGNED_IN)
    found = {"server": client.target.server, "context": client.target.context or None} | me
    if session.out.is_for_people:
        found |= {"token": _about_token(client, me)}
    session.out.thing(found, str((me.get("user") or {}).get("name", "")))


def _about_token(client: Any, me: Any) -> Any:
    """What the server lists about the token, where the role may see it; only its first characters are sent."""
    prefix = client.target.token[:10]
    try:
        rows = client.get("/access-tokens", {"q": prefix, "limit": 50}).data
    except CliError:
        return None
    row = next((row for row in rows if row["prefix"] == prefix), None)
    return row and {key: row[key] for key in ("name", "role", "expiresAt", "id")}


WHOAMI = Verb(
    "whoami",
    "Who you are to the server, with which role, and until when.",
    _whoami,
    (),
    ("GET /auth/me", "GET /access-tokens"),
)

# --- Contexts ---------------------------------------------------------------------------------------------------------


def _rows(store: Store) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "server": context.server,
            "current": name == store.current,
            "signedIn": bool(store.token(name)),
            "caFile": context.ca_file or None,
        }
        for name, context in sorted(store.contexts.items())
    ]


def _list(session: Session, params: Params) -> None:
    columns = (
        column("CURRENT", lambda row: "*" if row["current"] else ""),
        column("NAME", "name"),
        column("SERVER", "server"),
        column("SIGNED IN", "signedIn"),
    )
    empty = f"No contexts. Make one: {config.NOT_SIGNED_IN} --server URL"
    session.out.rows([_rows(Store())], columns, lambda row: str(row["name"]), empty=empty)


def _known(store: Store, name: str) -> Context:
    if name not in store.contexts:
        raise CliError(f"there is no context {name}", status=Exit.NOT_FOUND, hint="opencrane context list")
    return store.contexts[name]


def _use(session: Session, params: Params) -> None:
    store = Store()
    context = _known(store, params["name"])
    store.current = params["name"]
    store.write()
    session.out.note(f"Now at {context.server}.")


def _delete(session: Session, params: Params) -> None:
    store = Store()
    context = _known(store, params["name"])
    session.confirm(
        f"Delete context {params['name']} ({context.server})? Its token is forgotten, not revoked; logout does that.",
        yes=params["yes"],
    )
    store.forget(params["name"])
    session.out.note(f"context {params['name']} deleted")


_NAME = Arg("NAME", "The context's name.", names="context")
CONTEXT = Noun(
    "context",
    f"Servers that you work with, kept in {'$XDG_CONFIG_HOME'}/opencrane (~/.config/opencrane).",
    (
        Verb("list", "List contexts.", _list),
        Verb("use", "Make a context the current one.", _use, (_NAME,), shows=False),
        Verb("delete", "Forget a context, after asking.", _delete, (_NAME, YES), shows=False),
    ),
)
