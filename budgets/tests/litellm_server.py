"""A server that speaks LiteLLM's proxy API (version 1.106.2) as far as we use it, to the field, failures included.

LiteLLM itself needs a database that the package registries have no engine for. Written by its published openapi.json
and its sources: status codes, the error envelope, what `/key/info` says of deleted keys, unique aliases, the Enterprise
gate, paging of `/spend/logs/v2`.
"""

import hashlib
import json
import secrets
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

MASTER_KEY = "sk-master-of-the-tests-0123456789"


class RefusalError(Exception):
    """An answer of LiteLLM's ProxyException."""

    def __init__(self, status: int, message: str, kind: str = "internal_server_error", param: str = "None") -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": str(status)}}


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest() if key.startswith("sk-") else key


class FakeLitellm:
    """The server. `broken` makes paths fail; `asked` has every request as (method, path, body or query).

    `broken[path]` is a status to refuse with, a number of seconds as a float to be late, or bytes to answer with.
    """

    def __init__(self) -> None:
        self.keys: dict[str, dict[str, Any]] = {}
        self.dead: dict[str, dict[str, Any]] = {}
        self.graced: dict[str, str] = {}
        self.logs: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str, Any]] = []
        self.broken: dict[str, int | float | bytes] = {}
        self.is_enterprise = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.serve(self, {})

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                outer.serve(self, json.loads(self.rfile.read(length) or b"{}"))

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # -- HTTP ---------------------------------------------------------------------------------------------------------

    def serve(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        parts = urlsplit(handler.path)
        query = dict(parse_qsl(parts.query))
        self.asked.append((handler.command, parts.path, body or query))
        trouble = self.broken.get(parts.path)
        try:
            if isinstance(trouble, bytes):
                self._send(handler, 200, trouble)
                return
            if isinstance(trouble, float):
                time.sleep(trouble)
            elif trouble is not None:
                raise RefusalError(trouble, "Something is wrong here")
            if handler.headers.get("Authorization") != f"Bearer {MASTER_KEY}":
                raise RefusalError(401, "Authentication Error, Invalid proxy server token passed.", "auth_error", "key")
            routes = {
                ("POST", "/key/generate"): self.generate,
                ("POST", "/key/regenerate"): self.regenerate,
                ("POST", "/key/update"): self.update,
                ("POST", "/key/delete"): self.delete,
                ("GET", "/key/info"): self.info,
                ("GET", "/key/list"): self.list_keys,
                ("GET", "/spend/logs/v2"): self.spend_logs,
            }
            route = routes.get((handler.command, parts.path))
            if route is None:
                self._send(handler, 404, b'{"detail":"Not Found"}')
                return
            self._send(handler, 200, json.dumps(route(body or query)).encode())
        except RefusalError as exc:
            self._send(handler, exc.status, json.dumps(exc.body).encode())

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        try:
            handler.send_response(status)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        except OSError:
            # Whoever asked did not wait for the answer.
            pass

    # -- keys ---------------------------------------------------------------------------------------------------------

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        self._unique(body.get("key_alias"))
        value = body.get("key") or f"sk-{secrets.token_urlsafe(16)}"
        row = {
            "token": hashed(value),
            "key_name": f"sk-...{value[-4:]}",
            "key_alias": body.get("key_alias"),
            "spend": body.get("spend", 0.0),
            "max_budget": body.get("max_budget"),
            "budget_duration": body.get("budget_duration"),
            "metadata": body.get("metadata", {}),
            "blocked": None,
            "expires": None,
        }
        self.keys[row["token"]] = row
        return {**row, "key": value, "token_id": row["token"]}

    def regenerate(self, body: dict[str, Any]) -> dict[str, Any]:
        if not self.is_enterprise:
            raise RefusalError(
                500, "Regenerating Virtual Keys is an Enterprise feature, You must be a LiteLLM Enterprise user"
            )
        token = hashed(body["key"])
        row = self.keys.pop(token, None)
        if row is None:
            raise RefusalError(404, f"{{'error': 'Key {body['key']} not found.'}}")
        value = f"sk-{secrets.token_urlsafe(16)}"
        self.dead[token] = dict(row)
        row |= {"token": hashed(value), "key_name": f"sk-...{value[-4:]}"}
        self.keys[row["token"]] = row
        if body.get("grace_period"):
            self.graced[token] = row["token"]
        shown = {name: content for name, content in row.items() if name != "token"}
        return {**shown, "key": value, "token_id": row["token"], "token": None}

    def update(self, body: dict[str, Any]) -> dict[str, Any]:
        row = self.keys.get(hashed(body["key"]))
        if row is None:
            raise RefusalError(404, "Key not found.", "not_found_error", "key")
        if "key_alias" in body:
            self._unique(body["key_alias"], row["token"])
        row |= {name: body[name] for name in ("key_alias", "max_budget", "budget_duration") if name in body}
        if "duration" in body:
            row["expires"] = body["duration"]
        return {"key": body["key"], **row}

    def delete(self, body: dict[str, Any]) -> dict[str, Any]:
        tokens = [hashed(key) for key in body["keys"]]
        found = [token for token in tokens if token in self.keys]
        if not found:
            raise RefusalError(404, "{'error': 'No keys found'}")
        for token in found:
            self.dead[token] = self.keys.pop(token)
        return {"deleted_keys": body["keys"]}

    def info(self, query: dict[str, Any]) -> dict[str, Any]:
        token = hashed(query["key"])
        row = self.keys.get(token)
        if row is None and token not in self.dead:
            raise RefusalError(404, "Key not found in database", "not_found_error", "key")
        shown = dict(row or self.dead[token]) | {"status": "active" if row else "deleted"}
        del shown["token"]
        return {"key": query["key"], "info": shown}

    def list_keys(self, query: dict[str, Any]) -> dict[str, Any]:
        found = [row for row in self.keys.values() if row["key_alias"] == query["key_alias"]]
        shown = found if query.get("return_full_object") == "true" else [row["token"] for row in found]
        return {"keys": shown, "total_count": len(found), "current_page": 1, "total_pages": 1}

    def _unique(self, alias: str | None, but: str = "") -> None:
        if any(row["key_alias"] == alias and token != but for token, row in self.keys.items()):
            message = f"Key with alias '{alias}' already exists. Unique key aliases across all keys are required."
            raise RefusalError(400, message, "bad_request_error", "key_alias")

    def works(self, value: str) -> bool:
        """Whether a model could be called with this key."""
        token = hashed(value)
        row = self.keys.get(token) or self.keys.get(self.graced.get(token, ""))
        return row is not None

    # -- logs ---------------------------------------------------------------------------------------------------------

    def call(self, value: str = "", *, request: str, spend: float, at: datetime, **fields: Any) -> dict[str, Any]:
        """Somebody has called a model with a key; written into the logs as LiteLLM does."""
        row = self.keys.get(hashed(value), {})
        if row:
            row["spend"] += spend
        log = {
            "request_id": request,
            "call_type": "acompletion",
            "api_key": row.get("token", hashed(value) if value else ""),
            "spend": spend,
            "total_tokens": 30,
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "startTime": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            "endTime": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            "model": "openai/gpt-4o-mini",
            "model_group": "gpt-4o-mini",
            "metadata": {"user_api_key_alias": row.get("key_alias")},
            "status": "success",
        }
        self.logs.append(log | fields)
        return self.logs[-1]

    def spend_logs(self, query: dict[str, Any]) -> dict[str, Any]:
        def moment(text: str) -> datetime:
            return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)

        since, until = moment(query["start_date"]), moment(query["end_date"])
        page, size = int(query["page"]), int(query["page_size"])
        assert 1 <= size <= 1000
        found = [log for log in self.logs if since <= datetime.fromisoformat(log["startTime"]) <= until]
        found.sort(key=lambda log: log["startTime"], reverse=query["sort_order"] == "desc")
        shown = found[(page - 1) * size : page * size]
        total = min(len(found), 10_000)
        return {"data": shown, "total": total, "page": page, "page_size": size, "total_pages": -(-total // size)}
