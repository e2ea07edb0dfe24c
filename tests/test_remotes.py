"""`dvc push`, and in a fresh clone `dvc pull`: with a folder, and with S3 as moto's server on loopback."""

import hashlib
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy

pytestmark = pytest.mark.slow

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> toy.Workspace:
    """One in which everything has run and is committed."""
    here = toy.chain(tmp_path_factory.getbasetemp() / "chain").second
    here.run("git", "checkout", "-q", ".")
    here.run("dvc", "checkout")
    return here


@pytest.fixture
def s3(workspace: toy.Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server with an empty bucket `bucket`."""
    import boto3

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = workspace.start(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "moto's server does not answer"
                assert server.process.poll() is None, "moto's server has ended"
                time.sleep(0.1)
        boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}").create_bucket(Bucket="bucket")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file that DVC keeps or git tracks."""
    paths = (path for part in ("data", "models", "metrics") for path in (root / part).rglob("*"))
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.is_file() and path.name != ".gitignore"
    }


def push_and_pull(workspace: toy.Workspace, clone: Path, remote: str, *options: str) -> None:
    """Push to a remote, clone with git alone, pull."""
    copies = [workspace, toy.Workspace(clone, clone / "store")]
    workspace.run("git", "clone", "-q", str(workspace.root), str(clone))
    assert not (clone / "models").exists()
    for copy, word in zip(copies, ("push", "pull"), strict=True):
        copy.run("dvc", "remote", "add", "--local", "--force", "bucket", remote)
        for option in options:
            copy.run("dvc", "remote", "modify", "--local", "bucket", *option.split("=", 1))
        copy.run("dvc", word, "--remote", "bucket")
    expected = digests(workspace.root)
    some = {
        "models/base/model.safetensors",
        "data/pairs.jsonl",
        "metrics/measured/dpo/language.json",
        "models/dpo/origin.json",
    }
    assert some <= set(expected)
    assert digests(clone) == expected
    assert copies[1].run("dvc", "status").strip() == "Data and pipelines are up to date."


def test_folder(workspace: toy.Workspace, tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    push_and_pull(workspace, tmp_path / "clone", str(tmp_path / "bucket"))
    assert any((tmp_path / "bucket").rglob("*"))


def test_s3(workspace: toy.Workspace, tmp_path: Path, s3: str) -> None:
    push_and_pull(workspace, tmp_path / "clone", "s3://bucket/mothertongue", f"endpointurl={s3}")
