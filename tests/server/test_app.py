"""HTTP: the page, what can be watched, and what is refused."""

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from sana_streaming.server.app import Server, create_app
from sana_streaming.server.trust import Trust

from .fakes import FakeHub

LOCAL = "http://127.0.0.1:8000"


@pytest.fixture
def static(tmp_path):
    (tmp_path / "page" / "js").mkdir(parents=True)
    (tmp_path / "page" / "index.html").write_text("<title>page</title>")
    (tmp_path / "page" / "js" / "app.js").write_text("export {}")
    (tmp_path / "page" / "notes.secret").write_text("no page")
    (tmp_path / "secret.html").write_text("not yours")
    return tmp_path / "page"


def client_of(static, trust=Trust(), base=LOCAL, **options):  # noqa: B008  # frozen
    return TestClient(create_app(Server(FakeHub(), trust, **options), static), base_url=base)


def test_page(static):
    with client_of(static) as client:
        for path in ("/", "/index.html"):
            page = client.get(path)
            assert page.text == "<title>page</title>"
            assert page.headers["content-type"].startswith("text/html")
        script = client.get("/js/app.js")
        assert script.headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.html",
        "/js/../../secret.html",
        "/%2e%2e/secret.html",
        "/js/%2e%2e/%2e%2e/secret.html",
        "/..%5csecret.html",
        "//etc/passwd",
        "/index.html%00",
        "/notes.secret",
        "/js",
    ],
)
def test_no_path_leads_out(static, path):
    with client_of(static) as client:
        assert client.get(path).status_code == 404


def test_every_answer_has_the_headers(static):
    with client_of(static) as client:
        for answer in (
            client.get("/"),
            client.get("/nothing"),
            client.post("/whip"),
            client.get("/", headers={"host": "x"}),
        ):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"


def test_health_and_readiness(static):
    app = create_app(Server(FakeHub()), static)
    cold = TestClient(app, base_url=LOCAL)  # nothing was started
    assert cold.get("/health").json() == {"status": "ok"}
    assert cold.get("/ready").status_code == 503
    with TestClient(app, base_url=LOCAL) as warm:
        assert warm.get("/ready").json() == {"ready": True}


def test_schema_names_all_messages(static):
    with client_of(static) as client:
        told = client.get("/schema").json()
        assert "set_prompt" in str(told["client"])
        assert "applied" in str(told["server"])


def test_metrics_need_the_token_if_there_is_one(static):
    with client_of(static, Trust("s3cret")) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers={"authorization": "Bearer wrong"}).status_code == 401
        told = client.get("/metrics", headers={"authorization": "Bearer s3cret"}).text
        assert 'sana_streaming_refused_total{reason="token"} 2.0' in told
        assert client.get("/api/ice").status_code == 401
        assert client.get("/").status_code == 200  # the page asks for the token itself
        assert client.get("/health").status_code == 200


def test_ice_servers_are_told_to_the_page(static):
    servers = [{"urls": "stun:stun.example:3478"}]
    with client_of(static, ice=servers) as client:
        assert client.get("/api/ice").json() == {"iceServers": servers}


def test_names_of_others_are_refused(static):
    with client_of(static, base="http://evil.example:8000") as client:
        assert client.get("/").status_code == 403
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://evil.example:8000/api/session"):
            pass
    with client_of(static, Trust("s3cret"), base="http://camera.lan:8000") as client:
        assert client.get("/").status_code == 200


def test_pages_of_others_are_refused(static):
    events = []
    with client_of(static, log=lambda event, **_: events.append(event)) as client:
        evil = {"origin": "http://evil.example"}
        assert client.post("/whip", headers=evil).status_code == 403
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/session", headers=evil):
            pass
        assert events == ["refused", "refused"]
        with client.websocket_connect("ws://127.0.0.1:8000/api/session", headers={"origin": LOCAL}):
            pass
