"""Where a request's video may come from: nothing outside the served folder, no way inside."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flowsight.errors import InputError, ResourceError
from flowsight.serving import fetching
from flowsight.serving.memory import Limits
from flowsight.serving.settings import Settings, from_environment
from flowsight.serving.sources import decoded, local_file, path_below

OUTSIDE = "expected a path below the served folder"


def settings(root: Path | None = None, urls: str = "0", max_bytes: int = 10**6) -> Settings:
    limits = Limits(max_bytes=max_bytes, max_sec=60)
    return Settings(root=root, urls=urls, limits=limits, max_videos=4, threads=None)


@pytest.mark.parametrize("name", ["walk.avi", "deep/long.mp4", "./walk.avi", "in.avi"])
def test_files_below_the_folder(name: str, videos: Path) -> None:
    with local_file(name, None, settings(videos)) as found:
        assert found == (videos / name).resolve()
        assert found.is_file()


@pytest.mark.parametrize(
    "name",
    [
        "../secret.avi",
        "deep/../../secret.avi",
        "up/secret.avi",
        "out.avi",
        "/etc/passwd",
        "{root}/walk.avi",
        "..",
        "walk.avi/../../secret.avi",
        "a\0b",
        "loop",
        "loop/walk.avi",
    ],
)
def test_nothing_outside(name: str, videos: Path) -> None:
    with pytest.raises(InputError, match=rf"{OUTSIDE}|found no file") as raised:
        path_below(videos, name.format(root=videos))
    # whether it is there or not, the answer is the same, and the folder's place is not told
    assert str(videos) not in str(raised.value).replace(repr(f"{videos}/walk.avi"), "")
    if name in ("../secret.avi", "out.avi", "up/secret.avi", "/etc/passwd"):
        assert OUTSIDE in str(raised.value)


def test_absent_outside_reads_as_present_outside(videos: Path) -> None:
    messages = []
    for name in ("up/secret.avi", "up/nowhere.avi"):
        with pytest.raises(InputError) as raised:
            path_below(videos, name)
        messages.append(str(raised.value).replace(name, ""))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("name", ["absent.avi", "deep", "x" * 5000])
def test_no_such_file(name: str, videos: Path) -> None:
    with pytest.raises(InputError, match=rf"found no file|{OUTSIDE}"):
        path_below(videos, name)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.avi")
    with pytest.raises(InputError, match="found no file"):
        path_below(tmp_path, "pipe.avi")


def test_no_folder_no_paths() -> None:
    with pytest.raises(InputError, match="FLOWSIGHT_SERVE_ROOT"):
        path_below(None, "walk.avi")


@pytest.mark.parametrize(
    ("video", "content", "message"),
    [
        (None, None, "either `video` or `content`"),
        ("walk.avi", "AAAA", "either `video` or `content`"),
        ("", "", "either `video` or `content`"),
        (7, None, "expected text, got int"),
        (None, [1], "expected text, got list"),
    ],
)
def test_one_source_as_text(video: Any, content: Any, message: str, videos: Path) -> None:
    with (
        pytest.raises(InputError, match=message),
        local_file(video, content, settings(videos)),
    ):
        pass


@pytest.mark.parametrize("head", ["", "data:video/mp4;base64,", "data:;base64,"])
def test_content(head: str) -> None:
    text = head + base64.b64encode(b"some bytes").decode()
    with local_file(None, text, settings()) as path:
        assert path.read_bytes() == b"some bytes"
    assert not path.exists() and not path.parent.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not base64!", "as base64"),
        ("AAA", "as base64"),
        ("äöü=", "as base64"),
        ("data:video/mp4,AAAA", "another encoding"),
        ("A" * 2_000_000, "at most 1 MB"),
    ],
)
def test_bad_content(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decoded(text, 10**6)


class Handler(BaseHTTPRequestHandler):
    """Serves /video, a redirection to it, /large without a length, and one to a file."""

    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        moved = {"/moved": "/video", "/file": "file:///etc/passwd", "/loop": "/loop"}
        if self.path in moved:
            self.send_response(302)
            self.send_header("Location", moved[self.path])
            self.end_headers()
        elif self.path in ("/video", "/large"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"v" * (100 if self.path == "/video" else 2_000_000))
        else:
            self.send_error(404)

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    Handler.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("path", ["/video", "/moved"])
def test_urls_where_allowed(path: str, web: str) -> None:
    with local_file(web + path, None, settings(urls="any")) as found:
        assert found.read_bytes() == b"v" * 100
    assert not found.exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none", "HTTP status 404"),
        ("/large", "at most 1 MB"),
        ("/file", "HTTP status 302|http or https|in time"),
        ("/loop", "HTTP status 302"),
    ],
)
def test_bad_urls(path: str, message: str, web: str) -> None:
    with (
        pytest.raises((InputError, ResourceError), match=message),
        local_file(web + path, None, settings(urls="any")),
    ):
        pass


def test_urls_are_off_by_default(web: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FLOWSIGHT_SERVE_URLS", raising=False)
    with (
        pytest.raises(InputError, match="takes no URLs"),
        local_file(f"{web}/video", None, from_environment()),
    ):
        pass
    assert Handler.asked == []


def test_only_public_hosts(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by the address that was reached, whatever the name; nothing is asked of it."""
    monkeypatch.setenv("FLOWSIGHT_SERVE_URLS", "1")
    for host in ("127.0.0.1", "localhost"):
        url = f"{web}/video".replace("127.0.0.1", host)
        with (
            pytest.raises(InputError, match="public host, got one inside"),
            local_file(url, None, from_environment()),
        ):
            pass
    assert Handler.asked == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "gopher://host"])
def test_other_schemes(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="http or https"):
        fetching.fetch(url, tmp_path / "x", mode="any", limits=Limits())


def test_a_host_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="did not"):
        fetching.fetch("http://127.0.0.1:9/x", tmp_path / "x", mode="any", limits=Limits())


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a b/", "http://h:x/"])
def test_what_is_no_url(url: str, tmp_path: Path) -> None:
    with pytest.raises((InputError, ResourceError)):
        fetching.fetch(url, tmp_path / "x", mode="any", limits=Limits())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ROOT", "/nowhere/at/all", "expected a folder"),
        ("URLS", "yes", "FLOWSIGHT_SERVE_URLS as one of"),
        ("MAX_MB", "-1", "positive number"),
        ("MAX_SEC", "nan", "positive number"),
        ("MAX_FRAMES", "many", "positive number"),
        ("MAX_VIDEOS", "0", "positive number"),
    ],
)
def test_wrong_settings(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FLOWSIGHT_SERVE_{name}", value)
    with pytest.raises(InputError, match=message):
        from_environment()


def test_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "ROOT": str(tmp_path),
        "MAX_MB": "0.5",
        "MAX_SEC": "3",
        "URLS": "1",
    }.items():
        monkeypatch.setenv(f"FLOWSIGHT_SERVE_{name}", value)
    found = from_environment()
    assert (found.root, found.urls, found.threads) == (tmp_path.resolve(), "1", None)
    assert (found.limits.max_bytes, found.limits.max_sec) == (500_000, 3)
