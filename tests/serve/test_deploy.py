"""What `deploy/` says, as far as it can be tried without a container engine and without systemd running."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
DEPLOY = Path(__file__).parents[2] / "deploy"
# As `podman run --read-only` has it: only /data is written, here /mnt, and /tmp is not there for writing either.
READ_ONLY = 'mount --bind "$0" /mnt && mount -o remount,bind,ro / && ! touch /tmp/written /etc/written 2>/dev/null && '
WITHOUT_RIGHTS = "setpriv --reuid 10001 --regid 10001 --clear-groups --bounding-set=-all --no-new-privs"


def may_unshare() -> bool:
    tools = ("unshare", "setpriv")
    return (
        all(map(shutil.which, tools)) and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    )


def written(instruction: str) -> list[str]:
    """The JSON list of an instruction of the Containerfile."""
    found = re.search(
        rf"^{instruction}[^\[]*(\[.*?\])$", (DEPLOY / "Containerfile").read_text(), re.MULTILINE | re.DOTALL
    )
    assert found
    listed: list[str] = json.loads(found[1])
    return listed


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "prefrestore.service"
    # It looks whether the command is there, too.
    unit.write_text((DEPLOY / unit.name).read_text().replace("/opt/prefrestore/bin/prefrestore", "/bin/true"))
    ran = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The container's command on a read-only root, as its user, without any right."""
    others = [*WITHOUT_RIGHTS.split(), sys.executable, "-c", "import prefrestore.cli"]
    if subprocess.run(others, cwd="/", capture_output=True).returncode:
        pytest.skip("this environment lies where another user cannot read it")
    tmp_path.chmod(0o777)
    program, *options = written("ENTRYPOINT")
    assert program == "prefrestore" and options[0] == "serve"
    options = [option.replace("/data", "/mnt") for option in options]
    command = [sys.executable, "-m", "prefrestore.cli", *options, "--port", "0", "--preset", "tiny", "--no-example"]
    shell = f'{READ_ONLY} exec {WITHOUT_RIGHTS} "$@"'
    own = {"HOME": "/mnt", "TMPDIR": "/mnt", "PYTHONDONTWRITEBYTECODE": "1", "PREFRESTORE_TOKEN": "secret"}
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", shell, str(tmp_path), *command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | own,
            cwd="/",
        )
    assert process.stdout
    found = re.search(r":(\d+)/", process.stdout.readline())
    assert found, (tmp_path / "log.txt").read_text()
    yield f"http://127.0.0.1:{found[1]}"
    process.terminate()
    process.wait(timeout=60)
    process.stdout.close()


@pytest.mark.skipif(not may_unshare(), reason="needs unshare and setpriv, and the right to use them")
def test_the_container_s_command_works_on_a_read_only_root_without_rights(
    address: str, photo: bytes, tmp_path: Path
) -> None:
    health = [part.replace("http://127.0.0.1:8420", address) for part in written("HEALTHCHECK")]
    end = time.monotonic() + 300
    # It is asked again and again, as engines do: a busy machine may need longer than one answer's time.
    while subprocess.run([sys.executable, *health[1:]], capture_output=True).returncode != 0:
        assert time.monotonic() < end
    body = b'--xx\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n' + photo + b"\r\n--xx--\r\n"
    headers = {
        "Authorization": "Bearer secret",
        "Content-Type": "multipart/form-data; boundary=xx",
        "Prefer": "wait",
    }
    request = urllib.request.Request(f"{address}/api/v1/restorations", body, headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        assert answer.status == 200 and answer.read() != photo
    (state,) = (tmp_path / "serve" / "restorations").glob("*/state.json")
    assert state.stat().st_uid == 10001 and not state.parent.stat().st_mode & 0o077
