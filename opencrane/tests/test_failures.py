"""Every failure has the envelope, its status, its headers, and tells nothing it should not."""

import json
import logging
from typing import Any

import pytest
from django.test import Client

from conftest import ApiClient
from opencrane.addresses import client_address, parse_networks

pytestmark = [pytest.mark.urls("opencrane.tests.urls")]


def assert_envelope(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/json"
    assert response["X-Request-ID"]
    body: dict[str, Any] = json.loads(response.content)
    assert body["code"] == code
    assert body["error"]
    return body


def test_an_unknown_route_is_a_404_envelope(api: ApiClient) -> None:
    assert_envelope(api.get("/nothing"), 404, "NOT_FOUND")


def test_a_trailing_slash_is_another_route(api: ApiClient, db: None) -> None:
    assert api.get("/audit").status_code == 200
    assert_envelope(api.get("/audit/"), 404, "NOT_FOUND")


def test_a_wrong_method_names_the_right_ones(api: ApiClient) -> None:
    response = api.put("/probe", {})
    assert_envelope(response, 405, "METHOD_NOT_ALLOWED")
    assert set(response["Allow"].split(", ")) == {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}


def test_options_and_head_answer_without_a_body(api: ApiClient) -> None:
    options = api.options("/probe")
    assert (options.status_code, options.content) == (204, b"")
    assert "POST" in options["Allow"]
    got, head = api.get("/probe"), api.head("/probe")
    assert (head.status_code, head.content) == (200, b"")
    assert head["Content-Length"] == got["Content-Length"] == str(len(got.content))


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0, */*", "image/*"])
def test_a_caller_that_takes_no_json_gets_a_406(api: ApiClient, accept: str) -> None:
    assert_envelope(api.get("/probe", headers={"Accept": accept}), 406, "NOT_ACCEPTABLE")


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html, */*;q=0.1", "application/*", ""])
def test_a_caller_that_takes_json_gets_it(api: ApiClient, accept: str) -> None:
    assert api.get("/probe", headers={"Accept": accept}).status_code == 200


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
def test_another_media_type_is_a_415(api: ApiClient, media: str) -> None:
    response = api.generic("POST", "/probe", b'{"name": "a"}', content_type=media)
    assert_envelope(response, 415, "UNSUPPORTED_MEDIA_TYPE")


def test_an_empty_body_is_fine_where_none_is_needed_and_a_400_where_one_is(api: ApiClient) -> None:
    assert api.generic("DELETE", "/probe", b"", content_type="application/json").status_code == 200
    assert api.generic("GET", "/probe", b"", content_type="application/json").status_code == 200
    assert_envelope(api.post("/probe", b""), 400, "VALIDATION_ERROR")


def test_a_crash_is_logged_with_its_traceback_and_not_echoed(api: ApiClient, caplog: pytest.LogCaptureFixture) -> None:
    api.raise_request_exception = False
    with caplog.at_level(logging.ERROR):
        response = api.get("/probe/crash", headers={"X-Request-ID": "abc-1"})
    body = assert_envelope(response, 500, "INTERNAL_ERROR")
    assert "abc-1" in body["detail"]
    assert b"secret detail" not in response.content
    assert "secret detail" in caplog.text


def test_a_crash_of_a_page_is_a_page() -> None:
    browser = Client(raise_request_exception=False, headers={"Accept": "text/html"})
    response = browser.get("/crash")
    assert response.status_code == 500
    assert response["Content-Type"].startswith("text/html")
    assert b"secret detail" not in response.content
    assert response["X-Request-ID"].encode() in response.content


def test_a_database_that_is_away_is_a_503_that_names_it(api: ApiClient) -> None:
    response = api.get("/probe/database")
    body = assert_envelope(response, 503, "DEPENDENCY_UNAVAILABLE")
    assert "PostgreSQL" in body["error"]
    assert b"10.1.2.3" not in response.content
    assert response["Retry-After"]


def test_a_suspicious_request_is_a_400(api: ApiClient) -> None:
    response = api.get("/probe/suspicious")
    assert_envelope(response, 400, "VALIDATION_ERROR")
    assert b"secret" not in response.content


def test_a_foreign_host_is_a_400(api: ApiClient) -> None:
    assert_envelope(api.get("/probe", headers={"Host": "evil.example"}), 400, "VALIDATION_ERROR")


@pytest.mark.parametrize("path", ["/api/v1/tenants/a%00b", "/api/v1/%00"])
def test_a_nul_in_a_path_is_a_404(api: ApiClient, path: str) -> None:
    assert_envelope(api.get(path), 404, "NOT_FOUND")


@pytest.mark.parametrize("path", ["/api/v1/nothing/%ff%fe", "/api/v1/nothing/%ED%A0%80", "/api/v1/nothing/%"])
def test_odd_bytes_in_a_path_are_a_404(api: ApiClient, path: str) -> None:
    assert_envelope(api.get(path), 404, "NOT_FOUND")


@pytest.mark.parametrize("query", ["q=%00", "q=%ff", "%ED%A0%80=1", "q=%C3%28"])
def test_a_nul_or_bad_utf8_in_a_query_is_a_400(api: ApiClient, query: str) -> None:
    assert_envelope(api.generic("GET", "/audit", QUERY_STRING=query), 400, "VALIDATION_ERROR")


@pytest.mark.parametrize("given", ["abc", "A-1_b.C", "x" * 128])
def test_a_well_formed_request_id_is_kept(api: ApiClient, given: str) -> None:
    assert api.get("/probe", headers={"X-Request-ID": given})["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ä", "a\n"])
def test_another_request_id_is_replaced(api: ApiClient, given: str) -> None:
    shown = api.get("/probe", headers={"X-Request-ID": given})["X-Request-ID"]
    assert shown
    assert shown != given


def test_api_responses_cannot_be_sniffed_framed_or_run(api: ApiClient) -> None:
    response = api.get("/nothing")
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert response["Cache-Control"] == "no-store"


def test_the_api_sets_no_cookie(api: ApiClient) -> None:
    assert not api.get("/probe").cookies


def test_a_header_that_a_proxy_should_set_is_not_believed() -> None:
    meta = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "1.2.3.4, 5.6.7.8"}
    assert client_address(meta, ()) == "10.0.0.1"
    assert client_address(meta, parse_networks(["10.0.0.0/8"])) == "5.6.7.8"
    assert client_address(meta, parse_networks(["10.0.0.0/8", "5.6.7.8"])) == "1.2.3.4"
    assert client_address(meta | {"HTTP_X_FORWARDED_FOR": "junk"}, parse_networks(["10.0.0.0/8"])) == "10.0.0.1"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 200),
        ("*", 200),
        ('"7.0"', 200),
        ('"7.31"', 200),
        ('W/"7.2"', 200),
        ('"1.0", "7.0"', 200),
        ('"6.0"', 412),
        ('"70.0"', 412),
        ("nonsense", 412),
    ],
)
def test_if_match_counts_by_generation(api: ApiClient, header: str | None, status: int) -> None:
    headers = {} if header is None else {"If-Match": header}
    response = api.put("/probe/generation/7", headers=headers)
    assert response.status_code == status
    if status == 412:
        assert_envelope(response, 412, "PRECONDITION_FAILED")
