"""Who may ask, and what browsers are told. The model is not started: nothing here gets so far."""

import stat
from pathlib import Path
from typing import Any

import pytest

from prefrestore.errors import InvalidInputError

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from prefrestore.serve.app import create_app
from prefrestore.serve.settings import Settings

TOKEN = "a-token-of-this-test"


def asking(folder: Path, **chosen: Any) -> TestClient:
    settings = Settings(folder=folder, preset="tiny", device="cpu", example=False, **chosen)
    return TestClient(create_app(settings), base_url="http://127.0.0.1:8420", follow_redirects=False)


@pytest.fixture
def mine(tmp_path: Path) -> TestClient:
    """On loopback."""
    return asking(tmp_path / "served")


@pytest.fixture
def shared(tmp_path: Path) -> TestClient:
    """On every address, with a token."""
    return asking(tmp_path / "served", host="0.0.0.0", token=TOKEN, names=("photos.example",))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8420", 200),
        ("localhost:8420", 200),
        ("LOCALHOST", 200),
        ("[::1]:8420", 200),
        ("rebound.example:8420", 421),
        ("127.0.0.1.rebound.example", 421),
        ("localhost.rebound.example", 421),
        ("192.168.1.7:8420", 421),
        ("127.0.0.1@rebound.example", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
def test_only_this_machine_s_names_are_answered(mine: TestClient, host: str, status: int) -> None:
    for path in ("/api/v1/health", "/api/v1/restorations", "/static/api.js", "/"):
        answer = mine.get(path, headers={"host": host})
        assert (answer.status_code == 421) == (status == 421), path


@pytest.mark.parametrize(
    ("host", "status"),
    [("192.168.1.7:8420", 200), ("photos.example", 200), ("127.0.0.1", 200), ("rebound.example", 421)],
)
def test_beyond_loopback_addresses_and_named_hosts_are(shared: TestClient, host: str, status: int) -> None:
    assert shared.get("/api/v1/health", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://127.0.0.1:8420"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    ],
)
def test_pages_of_other_sites_are_refused(mine: TestClient, headers: dict[str, str], status: int) -> None:
    assert mine.get("/api/v1/restorations", headers=headers).status_code == status
    changed = mine.delete("/api/v1/judgements", headers=headers).status_code
    assert changed == (204 if status == 200 else 403)


def test_a_link_elsewhere_may_lead_to_the_page(mine: TestClient) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert mine.get("/", headers=headers).status_code == 200
    assert mine.get("/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}).status_code == 403


@pytest.mark.parametrize("path", ["/", "/docs", "/static/api.js", "/api/v1/health", "/api/v1/nothing", "/nothing"])
def test_every_answer_has_the_strict_headers_and_none_opens_to_others(mine: TestClient, path: str) -> None:
    for headers in ({}, {"origin": "http://127.0.0.1:8420"}, {"host": "rebound.example"}):
        answer = mine.get(path, headers=headers)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_no_preflight_is_answered(mine: TestClient) -> None:
    headers = {"origin": "http://evil.example", "access-control-request-method": "DELETE"}
    answer = mine.options("/api/v1/restorations", headers=headers)
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


def test_the_token_is_asked_for(shared: TestClient) -> None:
    refused = shared.get("/api/v1/restorations")
    assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Bearer")
    assert refused.headers["content-type"] == "application/problem+json"
    for wrong in ("", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9"):
        assert shared.get("/api/v1/info", headers={"authorization": wrong.encode("latin-1")}).status_code == 401
    assert shared.get("/api/v1/info", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    # A health check has no token, and the page's own files are no secret.
    for path in ("/api/v1/health", "/", "/static/api.js"):
        assert shared.get(path).status_code == 200
    for path in ("/docs", "/api/v1/openapi.json", "/api/v1/events"):
        assert shared.get(path).status_code == 401


def test_the_printed_address_lets_a_browser_in_and_leaves_no_token_in_it(shared: TestClient) -> None:
    assert shared.get("/?token=wrong").status_code == 200  # the page, which will be told 401
    assert shared.get("/api/v1/info").status_code == 401
    answer = shared.get(f"/?token={TOKEN}&x=1")
    assert answer.status_code == 303 and answer.headers["location"] == "/?x=1"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert shared.get("/api/v1/info").status_code == 200


def test_a_page_can_give_the_token_itself(shared: TestClient) -> None:
    assert shared.post("/api/v1/session", json={"token": "wrong"}).status_code == 401
    assert shared.post("/api/v1/session", json={"token": TOKEN}).status_code == 204
    assert shared.get("/api/v1/info").status_code == 200


def test_tokens_are_compared_in_constant_time(shared: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(a) or real(a, b))
    shared.get("/api/v1/info", headers={"authorization": "Bearer guess"})
    assert compared == [b"guess"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "photos.example", "::"])
def test_other_addresses_need_a_token(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidInputError, match="token"):
        Settings(folder=tmp_path, host=host)
    Settings(folder=tmp_path, host=host, token=TOKEN)


def test_the_folder_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.mkdir(mode=0o755)
    asking(folder)
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="file"):
        asking(tmp_path / "file")


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/"])
def test_static_files_are_the_page_s_alone(mine: TestClient, path: str) -> None:
    assert mine.get(path).status_code == 404
