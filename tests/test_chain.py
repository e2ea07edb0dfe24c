"""The whole chain on a toy model, with DVC and every real engine, in temporary copies of the project."""

import json
import re
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import toy
from ruamel.yaml import YAML

from mothertongue import params
from mothertongue.records import Answer, Thread, read_rows
from mothertongue.store import Store

pytestmark = pytest.mark.slow

THING = ("la cantante", "el mercado", "agua tibia")  # in no conversation of toy.THINGS


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> toy.Chain:
    """Two copies in which everything has run."""
    return toy.chain(tmp_path_factory.getbasetemp() / "chain")


@pytest.fixture(scope="module")
def experiment(chain: toy.Chain) -> toy.Running:
    """Another beta, in the first copy, while the tests before it use the second."""
    return chain.first.start("dvc", "exp", "run", "-S", "adapter.beta=0.3")


def _asked(store: Path) -> dict[str, int]:
    """How many calls of each label a model was asked, as the store has counted."""
    return {label: asked for label, _, asked in Store(store).calls()}


# What `dvc repro` makes


def test_every_stage_runs_once_and_leaves_its_outputs(chain: toy.Chain) -> None:
    stages = chain.first.run("dvc", "stage", "list", "--all", "--name-only").split()
    assert len(stages) > 15
    assert sorted(toy.ran(chain.printed)) == sorted(stages)
    lock = YAML(typ="safe").load(chain.first.root / "dvc.lock")["stages"]
    assert sorted(lock) == sorted(stages)
    outs = [chain.first.root / out["path"] for stage in lock.values() for out in stage["outs"]]
    assert len(outs) > len(stages)
    assert [out for out in outs if not (any(out.iterdir()) if out.is_dir() else out.stat().st_size)] == []


def test_a_second_repro_has_nothing_to_do(chain: toy.Chain) -> None:
    printed = chain.first.run("dvc", "repro")
    assert toy.ran(printed) == []
    assert printed.splitlines()[-1] == "Data and pipelines are up to date."


def test_two_fresh_copies_end_with_the_same_bytes(chain: toy.Chain) -> None:
    assert chain.first.store != chain.second.store
    assert _asked(chain.first.store) == _asked(chain.second.store) != {}
    for name in ("dvc.lock", "metrics/summary.json", "metrics/report.md"):
        assert (chain.first.root / name).read_bytes() == (chain.second.root / name).read_bytes()


# What becomes stale, as `dvc status` names it; what follows runs where the outputs before it come out otherwise.


def _stale(copy: toy.Workspace) -> set[str]:
    return {stage.split("@")[0] for stage in json.loads(copy.run("dvc", "status", "--json"))}


@pytest.mark.parametrize(
    ("package", "stale"),
    [
        ("trl", {"adapter", "merged"}),
        ("peft", {"adapter", "merged", "quantized"}),
        ("bitsandbytes", {"generated", "scored", "merged", "quantized", "metrics"}),
        ("lm-eval", {"metrics"}),
        ("vllm", {"generated", "scored", "metrics"}),
        ("torch", {"base", "generated", "scored", "adapter", "merged", "quantized", "metrics"}),
        ("moto", set()),
    ],
)
def test_another_engine_in_the_lock_makes_what_runs_on_it_stale(
    chain: toy.Chain, package: str, stale: set[str]
) -> None:
    copy = chain.second
    assert _stale(copy) == set()
    lock = copy.root / "requirements/cpu.txt"
    text, changed = re.subn(rf"^({package}(?:-cpu)?==)\S+", r"\g<1>99.0", lock.read_text(), flags=re.MULTILINE)
    assert changed == 1
    lock.write_text(text)
    copy.run(sys.executable, "requirements/engines.py", "requirements/cpu.txt")
    assert _stale(copy) == stale
    copy.run("git", "checkout", "-q", ".")
    assert _stale(copy) == set()


def test_another_end_token_makes_all_that_reads_the_model_stale(chain: toy.Chain) -> None:
    copy = chain.second
    path = copy.root / "models/base/tokenizer_config.json"
    found = path.read_text(encoding="utf-8")
    path.unlink()  # it may be a link into DVC's cache
    path.write_text(found.replace('"eos_token": "<|im_end|>"', '"eos_token": "<|im_start|>"'), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != found
    assert _stale(copy) == {"base", "generated", "scored", "adapter", "merged", "metrics"}
    copy.run("dvc", "checkout", "--force")
    assert _stale(copy) == set()


# Only what is new is asked. From here on the first copy is busy with the experiment below.


@pytest.mark.usefixtures("experiment")
def test_one_more_conversation_asks_for_its_own_rows(chain: toy.Chain) -> None:
    copy = chain.second
    before, old = _asked(copy.store), read_rows(copy.root / "data/threads.jsonl", Thread)
    answers = {name: (copy.root / f"data/generated/{name}.jsonl").read_text() for name in ("plain", "guided")}
    toy.write_conversations(
        copy.root / "data/sources/toy.jsonl", [*toy.conversations(), toy.conversations((THING,))[0]]
    )
    printed = copy.run("dvc", "repro", "pairs")
    assert toy.ran(printed) == [
        *("raw", "filtered", "threads", "generated@plain", "generated@guided", "scored@rubric", "pairs")
    ]
    (new,) = [row for row in read_rows(copy.root / "data/threads.jsonl", Thread) if row not in old]
    generated = params.load(copy.root / "params.yaml").generated
    said = [new.reference]
    expected = dict(before)
    for name, generator in generated.items():
        rows = read_rows(copy.root / f"data/generated/{name}.jsonl", Answer)
        mine = [row for row in rows if row.thread == new.id]
        assert len(mine) == generator.n
        assert set(answers[name].splitlines()) == {row.model_dump_json() for row in rows if row not in mine}
        expected[f"generated {name}"] += generator.n
        said += [row.text for row in mine]
    expected["scored rubric"] += len(set(said))  # two equal answers are one question to the judge
    assert _asked(copy.store) == expected


@pytest.mark.usefixtures("experiment")
def test_another_rubric_asks_no_generator(chain: toy.Chain) -> None:
    copy = chain.second
    before = _asked(copy.store)
    rubric = copy.root / "src/mothertongue/prompts/rubric.es.txt"
    rubric.write_text(f"{rubric.read_text(encoding='utf-8').strip()} Sé justo.\n", encoding="utf-8")
    printed = copy.run("dvc", "repro", "pairs")
    assert set(toy.ran(printed)) - {"pairs"} == {"scored@rubric"}
    after = _asked(copy.store)
    threads = len(read_rows(copy.root / "data/threads.jsonl", Thread))
    assert after["scored rubric"] - before["scored rubric"] > threads
    assert {**after, "scored rubric": 0} == {**before, "scored rubric": 0}


# Killing


def _until(running: toy.Running, happened: Callable[[], bool]) -> None:
    while running.process.poll() is None and not happened():
        time.sleep(0.01)


@pytest.mark.usefixtures("experiment")
def test_a_killed_generation_goes_on_where_it_was(chain: toy.Chain, tmp_path: Path) -> None:
    copy = chain.second.copied(tmp_path)
    yaml = YAML()
    values = yaml.load(copy.root / "params.yaml")
    values["generated"]["plain"]["n"] = 8
    yaml.dump(values, copy.root / "params.yaml")
    arguments = ("plain", "data/threads.jsonl", "models/base")
    elsewhere = toy.Workspace(copy.root, tmp_path / "undisturbed")
    undisturbed = elsewhere.stage("generated", *arguments, "undisturbed.jsonl")

    Store(copy.store)  # the tables are there before the stage is
    running = copy.stage("generated", *arguments, "killed.jsonl")
    with closing(sqlite3.connect(copy.store / "samples.sqlite", timeout=60, isolation_level=None)) as db:

        def kept() -> int:
            return int(db.execute("select count(*) from samples").fetchone()[0])

        _until(running, lambda: kept() > 0)
        db.execute("begin immediate")  # whatever batch is in flight can be asked, but not kept
        running.kill()
        first = kept()
        (batch,) = db.execute("select max(asked) from calls").fetchone()
    rows = 8 * len(read_rows(copy.root / "data/threads.jsonl", Thread))
    assert 0 < first < rows
    assert first % batch == 0
    assert not (copy.root / "killed.jsonl").exists()

    printed = copy.stage("generated", *arguments, "killed.jsonl").ended()
    assert f"{rows} calls, {first} found in the sample store ({first / rows:.0%}), {rows - first} asked" in printed
    undisturbed.ended()
    assert (copy.root / "killed.jsonl").read_bytes() == (copy.root / "undisturbed.jsonl").read_bytes()
    assert rows <= _asked(copy.store)["generated plain"] <= rows + batch
    assert _asked(elsewhere.store)["generated plain"] == rows


@pytest.mark.usefixtures("experiment")
def test_a_killed_training_leaves_no_adapter_and_the_next_one_the_same_bytes(chain: toy.Chain, tmp_path: Path) -> None:
    chain.second.run("git", "checkout", "-q", ".")
    chain.second.run("dvc", "checkout")
    copy = chain.second.copied(tmp_path)
    adapter, steps = copy.root / "models/adapter", copy.root / "metrics/adapter.csv"
    undisturbed = {path.name: path.read_bytes() for path in [*adapter.iterdir(), steps]}
    for path in [*adapter.iterdir(), steps]:
        path.unlink()
    adapter.rmdir()

    arguments = ("models/base", "data/pairs.jsonl", "models/adapter", "metrics/adapter.csv", "metrics/adapter.json")
    running = copy.stage("adapter", *arguments)
    _until(running, lambda: (copy.root / "models/.adapter.partial").exists())
    running.kill()
    assert not adapter.exists()
    assert not steps.exists()

    copy.stage("adapter", *arguments).ended()
    assert {path.name: path.read_bytes() for path in [*adapter.iterdir(), steps]} == undisturbed
    assert not (copy.root / "models/.adapter.partial").exists()


@pytest.mark.usefixtures("experiment")
def test_what_a_failed_stage_had_made_before_is_a_checkout_away(chain: toy.Chain) -> None:
    copy = chain.second
    copy.run("git", "checkout", "-q", ".")
    copy.run("dvc", "checkout")
    raw, source = copy.root / "data/raw.jsonl", copy.root / "data/sources/toy.jsonl"
    before, number = raw.read_bytes(), len(source.read_bytes().splitlines()) + 1
    with source.open("a") as file:
        file.write("{\n")
    printed = copy.start("dvc", "repro", "pairs").failed()
    assert f"Error: data/sources/toy.jsonl:{number}: not JSON (" in printed
    assert toy.ran(printed) == ["raw"]
    assert not raw.exists()  # DVC removes what a stage makes before it runs it
    copy.run("git", "checkout", "-q", ".")
    copy.run("dvc", "checkout")
    assert raw.read_bytes() == before


# Experiments


def test_an_experiment_runs_what_follows_and_nothing_before(experiment: toy.Running) -> None:
    levels = ("nf4", "int8")
    assert toy.ran(experiment.ended()) == [
        "adapter",
        "merged",
        *(f"quantized@{level}" for level in levels),
        *(f"metrics@{name}" for name in ("merged", *levels)),
        "report",
    ]


def test_experiments_compare(chain: toy.Chain, experiment: toy.Running) -> None:
    assert experiment.process.wait() == 0
    copy = chain.first
    header, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in copy.run("dvc", "exp", "show", "--md", "--precision", "8").strip().splitlines()
    )
    now, before, found = (dict(zip(header, row, strict=True)) for row in rows)
    assert [row["adapter.beta"] for row in (now, before, found)] == ["0.3", "0.1", "0.3"]
    summary = json.loads((copy.root / "metrics/summary.json").read_text(encoding="utf-8"))
    figures = [
        f"{name}.{part}" if part else name
        for name, value in summary.items()
        for part in (value if isinstance(value, dict) else ("",))
    ]
    assert 10 <= len(figures) <= 15
    assert [now[name] for name in figures] == [found[name] for name in figures]
    moved = {name for name in figures if now[name] != before[name]}
    assert moved

    lines = copy.run("dvc", "metrics", "diff", "--md").strip().splitlines()
    columns, _, *cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert columns == ["Path", "Metric", "HEAD", "workspace", "Change"]
    assert {(path, name) for path, name, *_ in cells} == {("metrics/summary.json", name) for name in moved}

    plots = json.loads(copy.run("dvc", "plots", "diff", "HEAD", "--json"))["data"]
    updates = len((copy.root / "metrics/adapter.csv").read_text(encoding="utf-8").splitlines()) - 1
    for name in ("loss", "reward accuracy", "reward margin"):
        (plot,) = plots[name]
        assert set(plot["revisions"]) == {"HEAD", "workspace"}
        points = plot["content"]["data"]["values"]
        assert len({(point["rev"], point["field"], point["step"]) for point in points}) == 2 * 2 * updates
