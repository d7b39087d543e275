"""The command itself, over real sockets: starting, leaving, cutting off, killing."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
PATIENCE = 600
BOUNDARY = "xxBOUNDARYxx"
CLEAN = (0, -signal.SIGTERM)
"""Exit statuses of a server that was told to end: once it has, it dies of the signal that told it."""


class Server:
    """``prefrestore serve`` in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "prefrestore.cli", "serve", "--port", "0", "--folder", str(folder)]
        command += ["--preset", "tiny", "--device", "cpu", "--no-example", *options]
        self.log = folder.parent / "log.txt"
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log.open("w"), text=True, env=os.environ | {"COLUMNS": "200"}
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        found = re.search(r"http://([^/]+):(\d+)/", self.said)
        assert found, self.said + self.log.read_text()
        self.port = int(found[2])

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        """Status, and JSON or bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, f"/api/v1{path}", body, headers)
        answer = connection.getresponse()
        data, kind = answer.read(), answer.headers.get("content-type", "")
        connection.close()
        return answer.status, json.loads(data) if "json" in kind else data

    def send(self, photo: bytes, **headers: str) -> tuple[int, Any]:
        return self.ask("POST", "/restorations", multipart(photo), **HEADERS, **headers)

    def until(self, wanted: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not wanted():
            assert time.monotonic() < end and self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def restorations(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.ask("GET", "/restorations")[1]["restorations"]
        return listed

    def end(self, kind: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(kind)
        code = self.process.wait(timeout=PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def multipart(photo: bytes, name: str = "aunt.png") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="{name}"\r\n\r\n'
    return head.encode() + photo + f"\r\n--{BOUNDARY}--\r\n".encode()


@pytest.fixture(scope="module")
def starting() -> Iterator[Callable[..., Server]]:
    """Start servers; those that a test leaves running are ended with the module."""
    started: list[Server] = []

    def start(folder: Path, *options: str) -> Server:
        started.append(Server(folder, *options))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, starting: Callable[..., Server]) -> Server:
    """One that tests share."""
    return starting(tmp_path_factory.mktemp("server") / "served")


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_after_a_kill_finished_results_are_there_and_the_unfinished_say_so(
    starting: Callable[..., Server], tmp_path: Path, photo: bytes
) -> None:
    first = starting(tmp_path / "served")
    status, picture = first.send(photo, Prefer="wait")
    assert status == 200
    for _ in range(6):
        assert first.send(photo)[0] == 202
    first.until(lambda: any(one["status"] == "running" for one in first.restorations()[:5]))
    first.end(signal.SIGKILL)
    second = starting(tmp_path / "served")
    found = second.restorations()
    assert len(found) == 7
    done = [one for one in found if one["status"] == "done"]
    unfinished = [one for one in found if one["status"] == "failed"]
    assert len(done) + len(unfinished) == 7 and unfinished
    for one in done:
        assert second.ask("GET", f"/restorations/{one['id']}/photo") == (200, picture)
    for one in unfinished:
        assert one["interrupted"] and "service ended" in one["message"]
    id = unfinished[0]["id"]
    assert second.ask("POST", f"/restorations/{id}/retry")[0] == 202
    second.until(lambda: second.ask("GET", f"/restorations/{id}")[1]["status"] == "done")
    assert second.ask("GET", f"/restorations/{id}/photo") == (200, picture)
    assert second.end() in CLEAN


def test_uploads_that_are_cut_off_leave_nothing(server: Server, photo: bytes) -> None:
    body, before = multipart(photo), len(server.restorations())
    for share in (0.0, 0.1, 0.5, 0.99):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
            head = f"POST /api/v1/restorations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
            head += f"Content-Type: {HEADERS['Content-Type']}\r\n\r\n"
            connection.sendall(head.encode() + body[: int(share * len(body))])
    server.until(lambda: server.ask("GET", "/restorations")[1]["queue"]["length"] == 0)
    assert len(server.restorations()) == before
    assert server.send(photo, Prefer="wait")[0] == 200


def test_a_client_that_leaves_frees_its_slot(server: Server, photo: bytes) -> None:
    before, body = len(server.restorations()), multipart(photo)
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
            head = f"POST /api/v1/restorations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
            head += f"Prefer: wait\r\nContent-Type: {HEADERS['Content-Type']}\r\n\r\n"
            connection.sendall(head.encode() + body)
            server.until(lambda: len(server.restorations()) > before)
    server.until(lambda: server.ask("GET", "/restorations")[1]["queue"]["length"] == 0)
    # One may have been finished in the moment of leaving; none waits or runs.
    assert {one["status"] for one in server.restorations()} <= {"done"}
    assert server.send(photo, Prefer="wait")[0] == 200


def test_a_client_that_leaves_before_its_answer_leaves_no_photo(server: Server, photo: bytes) -> None:
    known = {one["id"] for one in server.restorations()}
    kind, body = HEADERS["Content-Type"], multipart(photo, "left.png")
    head = f"POST /api/v1/restorations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as leaving:
            leaving.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert server.send(photo)[0] == 202  # by now the others were looked at
    server.until(lambda: len({one["id"] for one in server.restorations()} - known) == 1)


def test_nothing_of_a_photo_is_in_the_log(server: Server, photo: bytes) -> None:
    server.ask("POST", "/restorations", multipart(photo, "secret-name.png"), **HEADERS, Prefer="wait")
    server.ask("POST", "/restorations", multipart(photo[:999], "secret-name.png"), **HEADERS, Prefer="wait")
    log = server.log.read_text()
    assert "secret-name" not in log and "Traceback" not in log
    assert "is done" in log


def test_the_page_is_there_before_the_model(starting: Callable[..., Server], tmp_path: Path) -> None:
    server = starting(tmp_path / "served")
    status, health = server.ask("GET", "/health")
    assert (status, health) == (200, {"status": "ok", "model": "loading"})
    assert server.end() in CLEAN


def test_another_address_prints_a_token_once_and_asks_for_it(starting: Callable[..., Server], tmp_path: Path) -> None:
    server = starting(tmp_path / "served", "--host", "0.0.0.0")
    found = re.search(r"\?token=([\w-]{20,})", server.said)
    assert found
    assert server.ask("GET", "/restorations")[0] == 401
    assert server.ask("GET", "/restorations", Authorization=f"Bearer {found[1]}")[0] == 200
    assert server.end() in CLEAN
    assert found[1] not in server.log.read_text()


def test_an_address_that_is_taken_is_one_sentence(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prefrestore.cli", "serve", "--port", str(server.port), "--folder", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.returncode == 1 and ran.stderr.startswith("error: cannot listen on 127.0.0.1:")
    assert ran.stderr.count("\n") == 1
