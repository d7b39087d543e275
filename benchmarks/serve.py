"""The service under load, on loopback and bounded: nothing lost, nothing mixed up, the queue bounded, memory flat.

    python benchmarks/serve.py                             64 clients, two minutes, the bundled weights
    python benchmarks/serve.py --preset tiny --seconds 30  random weights: the service rather than the model

It starts ``prefrestore serve`` on a free port with a folder of its own, and prints: the time from its start to the
first page, with the processor's seconds until then, and to the model; how long a re-blend takes on a photo of 12
megapixels; random bodies, uploads that are cut off and bombs, after which the service must answer as before; what the
clients got (an answer is right when its bytes are those that the quiet service gave for the same photo), the longest
queue, and memory every ten seconds. The exit status is 1 when anything was lost, mixed up or unbounded.
"""

import argparse
import hashlib
import http.client
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from parts.reblend import reblend
from PIL import Image

BOUNDARY = "a3f1benchmark"
KIND = f"multipart/form-data; boundary={BOUNDARY}"
PATIENCE = 300
PHOTOS = 8


class Server:
    """The service in a process of its own."""

    def __init__(self, folder: Path, preset: str) -> None:
        command = [sys.executable, "-m", "prefrestore.cli", "serve", "--port", "0", "--folder", str(folder)]
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [*command, "--preset", preset, "--device", "cpu", "--no-example"], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        found = re.search(r"http://[^/]+:(\d+)/", self.process.stdout.readline())
        assert found, "the service did not start"
        self.port = int(found[1])

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, value: Any = None) -> Any:
        body = b"" if value is None else json.dumps(value).encode()
        return json.loads(self.ask(method, f"/api/v1{path}", body, **{"Content-Type": "application/json"})[1])

    def restore(self, photo: bytes, options: str = "{}") -> tuple[int, bytes]:
        headers = {"Content-Type": KIND, "Prefer": "wait"}
        return self.ask("POST", "/api/v1/restorations", multipart(photo, options), **headers)

    def processor(self) -> float:
        """Seconds that the processor has worked for it; Linux only. On a busy machine they say more than the clock."""
        status = Path(f"/proc/{self.process.pid}/stat")
        if not status.is_file():
            return float("nan")
        fields = status.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Resident, MB; Linux only."""
        status = Path(f"/proc/{self.process.pid}/status")
        found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.is_file() else None
        return int(found[1]) / 1024 if found else float("nan")


def multipart(photo: bytes, options: str = "{}") -> bytes:
    parts = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="options"\r\n\r\n{options}\r\n'.encode()
    parts += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n'.encode()
    return parts + photo + f"\r\n--{BOUNDARY}--\r\n".encode()


def portraits() -> list[bytes]:
    """Small photos with one blurred face each, all different."""
    from skimage import data

    face = Image.fromarray(data.astronaut()).crop((96, 0, 352, 256)).resize((48, 48), Image.Resampling.BOX)
    whole = np.asarray(face.resize((192, 192), Image.Resampling.BICUBIC)).astype(int)
    photos = []
    for number in range(PHOTOS):
        out = io.BytesIO()
        Image.fromarray(np.clip(whole + 4 * number - 16, 0, 255).astype(np.uint8)).save(out, "PNG")
        photos.append(out.getvalue())
    return photos


def cold_start(server: Server) -> None:
    while True:
        try:
            status, _ = server.ask("GET", "/")
            break
        except OSError:
            time.sleep(0.01)
    seconds = time.perf_counter() - server.started
    print(f"first page ({status}) {seconds:.2f} s after the start, {server.processor():.2f} s of the processor's")
    while server.json("GET", "/health")["model"] == "loading":
        time.sleep(0.1)
    print(f"model ready {time.perf_counter() - server.started:.1f} s after the start")


def load(server: Server, clients: int, seconds: float) -> bool:
    """Each client restores one photo of the eight again and again."""
    photos = portraits()
    expected = [hashlib.sha256(server.restore(photo)[1]).hexdigest() for photo in photos]
    assert len(set(expected)) == len(photos)
    end, told, longest = time.monotonic() + seconds, Counter[str](), [0]
    lock = threading.Lock()

    def client(number: int) -> None:
        which = number % len(photos)
        while time.monotonic() < end:
            try:
                status, answer = server.restore(photos[which])
            except OSError as error:
                said = f"lost ({type(error).__name__})"
            else:
                right = hashlib.sha256(answer).hexdigest() == expected[which]
                said = ("right" if right else "mixed up") if status == 200 else f"status {status}"
                if status in (429, 503):
                    time.sleep(0.2)
            with lock:
                told[said] += 1

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    curve = []
    while any(thread.is_alive() for thread in threads):
        if time.monotonic() < end:
            queue = server.json("GET", "/restorations")["queue"]
            longest[0] = max(longest[0], queue["length"])
        curve.append(server.memory())
        for thread in [thread for thread in threads if thread.is_alive()][:1]:
            thread.join(timeout=10)
        if time.monotonic() > end + PATIENCE:
            break
    print(f"{clients} clients, {seconds:.0f} s: {dict(told)}; longest queue {longest[0]} of {queue['limit']}")
    print("memory, MB, every ten seconds:", " ".join(f"{value:.0f}" for value in curve))
    kept = server.json("GET", "/restorations")["restorations"]
    unfinished = [one["status"] for one in kept if one["status"] != "done"]
    print(f"{len(kept)} results kept, {len(unfinished)} of them unfinished")
    wrong = sum(count for said, count in told.items() if said not in ("right", "status 429"))
    return not wrong and longest[0] <= queue["limit"] and not unfinished and told["right"] + len(photos) == len(kept)


def abuse(server: Server, bodies: int) -> bool:
    """Random bodies, uploads cut off, bombs: clear answers, and the service goes on."""
    chance, told = random.Random(0), Counter[int]()
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="../../x.png"\r\n\r\n'.encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    for number in range(bodies):
        body = chance.randbytes(chance.randrange(600))
        if number % 3 == 0:
            body = head + body
        if number % 6 == 0:
            body += f"\r\n--{BOUNDARY}--\r\n".encode()
        connection.request("POST", "/api/v1/restorations", body, {"Content-Type": KIND})
        answer = connection.getresponse()
        answer.read()
        told[answer.status] += 1
    connection.close()
    for number in range(50):
        with socket.create_connection(("127.0.0.1", server.port)) as cut:
            start = f"POST /api/v1/restorations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {KIND}\r\n"
            cut.sendall(f"{start}Content-Length: 1000000\r\n\r\n".encode() + head + bytes(1000 * number))
    out = io.BytesIO()
    Image.new("1", (60_000, 60_000)).save(out, "PNG")
    bomb, answer_to_bomb = server.restore(out.getvalue())
    print(f"{bodies} random bodies: {dict(told)}; a bomb of 60,000 px: {bomb}, {json.loads(answer_to_bomb)['detail']}")
    goes_on = server.restore(portraits()[0])[0]
    return set(told) <= {400, 422} and bomb == 422 and goes_on == 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--bodies", type=int, default=10_000)
    parser.add_argument("--reblend", action="store_true", help="only that: no load")
    arguments = parser.parse_args()
    print("load average before:", " ".join(f"{value:.1f}" for value in os.getloadavg()), "on", os.cpu_count(), "cores")
    reblend()
    if arguments.reblend:
        return
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "served", arguments.preset)
        try:
            cold_start(server)
            well = [abuse(server, arguments.bodies)]
            for path in server.json("GET", "/restorations")["restorations"]:
                server.ask("DELETE", f"/api/v1/restorations/{path['id']}")
            well.append(load(server, arguments.clients, arguments.seconds))
        finally:
            server.process.terminate()
            server.process.wait(timeout=60)
    sys.exit(0 if all(well) else 1)


if __name__ == "__main__":
    main()
