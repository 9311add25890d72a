"""`opencrane api`: any operation, in the manner of `gh api`."""

import sys
from typing import Any

from cli import values
from cli.errors import CliError, UsageError
from cli.session import Session
from cli.spec import Arg, Flag, Params, Verb

METHODS = ("GET", "POST", "PUT", "DELETE")


def _method(text: str) -> str:
    if text.upper() not in METHODS:
        raise ValueError(f"{text} is none of {', '.join(METHODS)}")
    return text.upper()


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not text.isascii() or any(ord(each) < 32 for each in text):
        raise ValueError(f"{text} is no header; one looks like 'If-Match: \"3.1\"'")
    return name.strip(), value.strip()


def _api(session: Session, params: Params) -> None:
    from cli.client import PREFIX, failure

    method, place = params["method"], params["path"]
    place = f"/{place.lstrip('/')}".removeprefix(PREFIX)
    if "://" in params["path"] or ".." in place.split("?")[0].split("/"):
        raise UsageError(f"{params['path']} is no path below {PREFIX}")
    place, _, rest = place.partition("?")
    query: dict[str, Any] = {}
    if rest:
        from urllib.parse import parse_qsl

        query |= dict(parse_qsl(rest, keep_blank_values=True))
    query |= dict(params["query"])
    body = _body(session, params)
    if params["paginate"]:
        _paginate(session, method, place, query)
        return
    response = session.client.send(method, place, query=query, body=body, headers=dict(params["header"]))
    out = session.out
    if params["include"]:
        out.line(f"HTTP {response.status_code} {response.reason_phrase}")
        for name, value in response.headers.items():
            out.line(f"{name}: {value}")
        out.line()
    is_json = response.headers.get("content-type", "").partition(";")[0].endswith("json")
    data = response.json() if is_json and response.content else None
    if response.is_success or params["include"]:
        _show(session, response, data)
    if response.is_success:
        return
    request_id = response.headers.get("x-request-id", "")
    if isinstance(data, dict) and "error" in data:
        raise failure(response.status_code, data, request_id, response.headers.get("retry-after", ""))
    raise CliError(f"HTTP {response.status_code} {response.reason_phrase}", request_id=request_id)


def _body(session: Session, params: Params) -> Any:
    if not params["file"]:
        return None
    from cli import yamls

    found = list(yamls.documents(session.text(params["file"]), params["file"]))
    if len(found) != 1:
        raise UsageError(f"{params['file']} has to hold one body")
    return found[0]


def _show(session: Session, response: Any, data: Any) -> None:
    if data is not None:
        if session.out.is_for_people:
            session.out.format = "json"
        session.out.data(data)
    elif response.content:
        session.out.stdout.flush()
        sys.stdout.buffer.write(response.content)
        sys.stdout.buffer.flush()


def _paginate(session: Session, method: str, place: str, query: dict[str, Any]) -> None:
    if method != "GET":
        raise UsageError("--paginate is for GET")
    if session.out.is_for_people:
        session.out.format = "json"
    first = session.client.get(place, {"limit": 1} | query).data
    items = ""
    if isinstance(first, dict):
        items = next((name for name in ("data", "tenants", "items") if isinstance(first.get(name), list)), "")
        if not items:
            raise UsageError(f"{place} is no list")
    query.pop("limit", None)
    session.out.rows((rows for rows, _ in session.client.pages(place, query, items=items)), (), str)


API = Verb(
    "api",
    "Send one request to the API, and print the answer.",
    _api,
    (
        Arg("METHOD", f"{', '.join(METHODS)}.", read=_method),
        Arg("PATH", "Below /api/v1: /tenants/anna."),
        Flag("-f, --file", "The body as YAML or JSON, or - for standard input.", metavar="FILE"),
        Flag("-q, --query", "A parameter.", metavar="KEY=VALUE", many=True, read=values.pair),
        Flag("-H, --header", "A header.", metavar="NAME:VALUE", many=True, read=_header),
        Flag("-i, --include", "The answer's status and headers too.", switch=True),
        Flag("--paginate", "All pages of a list.", switch=True),
    ),
    about="The document at /api/v1/openapi.json says what there is; /api/docs shows it.",
    examples=(
        "api GET /tenants -q team=search -q limit=10",
        "api PUT /tenants/anna -f changes.yaml -H 'If-Match: \"3.1\"'",
        "api GET /audit --paginate",
    ),
)
