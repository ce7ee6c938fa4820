"""Who may ask: the page itself, by this machine's own names; and what each answer has the browser keep to."""

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from polyinr_core.viewer.server import SecurityMiddleware

PORT = 8421


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("behind the middleware")(scope, receive, send)


@pytest.fixture
def client() -> TestClient:
    return TestClient(SecurityMiddleware(app, port=PORT), base_url=f"http://127.0.0.1:{PORT}")


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", "[::1]:8421", ""])
def test_other_names_of_the_host_are_refused(client: TestClient, host: str) -> None:
    for path in ("/", "/model", "/tile/9/0/0"):
        assert client.get(path, headers={"host": host}).status_code == 421


def test_both_own_names_are_taken(client: TestClient) -> None:
    for name in ("127.0.0.1", "localhost"):
        headers = {"host": f"{name}:{PORT}", "origin": f"http://{name}:{PORT}", "sec-fetch-site": "same-origin"}
        assert client.get("/model", headers=headers).status_code == 200
    plain = TestClient(SecurityMiddleware(app, port=80), base_url="http://127.0.0.1")
    assert plain.get("/model").status_code == 200


FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": f"https://127.0.0.1:{PORT}"},
    {"origin": "http://127.0.0.1:1"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},  # another port of this machine
    {"sec-fetch-site": "cross-site", "sec-fetch-dest": "iframe"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_other_origins_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    for path in ("/", "/model", "/tile/9/0/0"):
        assert client.get(path, headers=headers).status_code == 403


def test_a_link_from_elsewhere_opens_the_page_alone(client: TestClient) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-dest": "document", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200
    assert client.get("/model", headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/", {}), ("/tile/9/0/0", {}), ("/", FOREIGN[0]), ("/", {"host": "x"})],
)
def test_every_answer_says_what_the_browser_must_keep_to(
    client: TestClient, path: str, headers: dict[str, str]
) -> None:
    answer = client.get(path, headers=headers).headers
    policy = dict(part.strip().partition(" ")[::2] for part in answer["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert "unsafe" not in answer["content-security-policy"]
    assert answer["x-content-type-options"] == "nosniff"
    assert answer["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer
