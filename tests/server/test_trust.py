"""Who may connect."""

import pytest

from sana_streaming.server.trust import Bucket, Trust, bearer, is_loopback, make_token

from .fakes import Clock


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_loopback(host, alone):
    assert is_loopback(host) is alone


def test_token():
    trust = Trust("s3cret")
    assert trust.knows("s3cret")
    assert not trust.knows("s3cre")
    assert not trust.knows(None)
    assert not trust.knows("é")
    assert Trust().knows(None)
    assert len({make_token() for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("localhost:8000", True),
        ("127.0.0.1", True),
        ("[::1]:8000", True),
        ("evil.example:8000", False),
        (None, False),
        ("localhost.evil.example", False),
        ("evil.example@127.0.0.1", True),
        ("[", False),
        ("show.example", True),
    ],
)
def test_without_a_token_only_own_names_are_served(host, served):
    assert Trust(origins=("https://show.example",)).serves(host) is served


def test_with_a_token_any_name_is_served():
    assert Trust("s3cret").serves("camera.lan:8000")


@pytest.mark.parametrize(
    ("origin", "admitted"),
    [
        (None, True),
        ("http://localhost:8000", True),
        ("https://localhost:8000", True),
        ("http://localhost:9000", False),
        ("http://evil.example", False),
        ("null", False),
        ("https://show.example", True),
        ("file://", False),
        ("http://[", False),
        ("ftp://localhost:8000", False),
    ],
)
def test_origin(origin, admitted):
    assert Trust(origins=("https://show.example",)).admits(origin, "localhost:8000") is admitted


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic abc", None),
        ("abc", None),
        ("Bearer ", None),
        (None, None),
    ],
)
def test_bearer(header, token):
    assert bearer(header) == token


def test_bucket_lets_through_its_rate():
    clock = Clock()
    bucket = Bucket(rate=2, burst=5, clock=clock)
    assert sum(bucket.take() for _ in range(20)) == 5
    clock.now += 1
    assert sum(bucket.take() for _ in range(20)) == 2
    clock.now += 1000
    assert sum(bucket.take() for _ in range(20)) == 5
