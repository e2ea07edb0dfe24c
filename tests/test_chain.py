"""The whole chain on a toy model, with DVC and every real engine, in temporary copies of the project."""

import json
import math
import re
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy
from ruamel.yaml import YAML

from mothertongue import params
from mothertongue.measurements import SampleScore
from mothertongue.records import Answer, Pair, Thread
from mothertongue.rows import read_rows
from mothertongue.store import Store
from mothertongue.training.curves import CURVES

pytestmark = pytest.mark.slow

HEALTH = ("prompts", "tokens", "min_right_language", "max_repetition", "min_length")  # limits without pairs
THING = ("la cantante", "el mercado", "agua tibia")  # in no conversation of toy.THINGS


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> toy.Chain:
    """Two copies in which everything has run."""
    return toy.chain(tmp_path_factory.getbasetemp() / "chain")


@pytest.fixture(scope="module")
def experiment(chain: toy.Chain) -> toy.Running:
    """Another beta, in the first copy, while the tests before it use the second."""
    return chain.first.start("dvc", "exp", "run", "-S", "adapter.dpo.beta=0.3")


def _misses(store: Path) -> dict[str, int]:
    """How many calls of each label a model has computed, as the store has counted."""
    return {label: misses for label, _, misses in Store(store).count_calls()}


def _edit_params(copy: toy.Workspace, change: Callable[[Any], None]) -> None:
    yaml = YAML()
    values = yaml.load(copy.root / "params.yaml")
    change(values)
    yaml.dump(values, copy.root / "params.yaml")


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def _lock(copy: toy.Workspace) -> dict[str, Any]:
    """The stages in dvc.lock."""
    return dict(YAML(typ="safe").load(copy.root / "dvc.lock")["stages"])


# What `dvc repro` makes


def test_every_stage_runs_once_and_leaves_its_outputs(chain: toy.Chain) -> None:
    stages = chain.first.run("dvc", "stage", "list", "--all", "--name-only").split()
    assert len(stages) > 15
    assert sorted(toy.ran(chain.printed)) == sorted(stages)
    lock = _lock(chain.first)
    assert sorted(lock) == sorted(stages)
    outs = [chain.first.root / out["path"] for stage in lock.values() for out in stage["outs"]]
    assert len(outs) > len(stages)
    empty = [out for out in outs if not (any(out.iterdir()) if out.is_dir() else out.stat().st_size)]
    assert empty == [chain.first.root / "data/texts.jsonl"]  # no step pre-trains on texts


def test_a_second_repro_has_nothing_to_do(chain: toy.Chain) -> None:
    printed = chain.first.run("dvc", "repro")
    assert toy.ran(printed) == []
    assert printed.splitlines()[-1] == "Data and pipelines are up to date."


def test_two_fresh_copies_end_with_the_same_bytes(chain: toy.Chain) -> None:
    assert chain.first.store != chain.second.store
    assert _misses(chain.first.store) == _misses(chain.second.store) != {}
    for name in ("dvc.lock", "metrics/summary.json", "metrics/report.md"):
        assert (chain.first.root / name).read_bytes() == (chain.second.root / name).read_bytes()


# Files that others read as they are. Two languages run meanwhile.


@pytest.fixture(scope="module")
def bilingual(chain: toy.Chain) -> tuple[toy.Workspace, toy.Running]:
    """A copy with two languages, a conversation each in turn, without vLLM and levels of quantisation."""
    folder = chain.first.root.parent.parent
    copy = toy.Workspace.made(folder / "bilingual", folder / "toy")

    def change(values: Any) -> None:
        values["languages"] = ["es", "it"]
        values["filtered"]["min_language"] = 0.0
        values["threads"] |= {"validation": 0.2, "test": 0.2}
        for entry in (*values["generated"].values(), *values["scored"].values(), *values["win_rate"].values()):
            entry["engine"] = "transformers"
        for level in values["quantized"]:
            del values["metrics"]["models"][level]
        values["quantized"] = {}

    _edit_params(copy, change)
    path = copy.root / "data/sources/toy.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = (json.dumps(row | {"language": "it" if number % 2 else "es"}) for number, row in enumerate(rows))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    questions = (toy.ROOT / "data/suites/benchmark.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    spanish, italian = (
        [line for line in questions if json.loads(line)["language"] == code][:12] for code in ("es", "it")
    )
    (copy.root / "data/suites/benchmark.jsonl").write_text("".join(spanish + italian), encoding="utf-8")
    return copy, copy.start("dvc", "repro")


TRL = """
import json, sys
from datasets import load_dataset
from trl import DPOConfig, DPOTrainer

folder = sys.argv[1]
rows = load_dataset("json", data_files="data/pairs.jsonl", split="train", cache_dir=folder)
config = DPOConfig(output_dir=folder, max_steps=1, per_device_train_batch_size=4, use_cpu=True, report_to=[])
trainer = DPOTrainer(model="models/base", args=config, train_dataset=rows)
found = trainer.train()
print(json.dumps([len(rows), trainer.state.global_step, found.training_loss]))
"""

PEFT = """
import json
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM

ids = torch.arange(3, 83)[None]
loaded = (
    AutoPeftModelForCausalLM.from_pretrained("models/adapter/dpo", dtype=torch.float32),
    AutoModelForCausalLM.from_pretrained("models/dpo", dtype=torch.float32),
    AutoModelForCausalLM.from_pretrained("models/base", dtype=torch.float32),
)
with torch.inference_mode():
    adapted, merged, base = (model.eval()(input_ids=ids).logits.log_softmax(-1) for model in loaded)
print(json.dumps([float((adapted - other).abs().max()) for other in (merged, base)]))
"""

VLLM = """
import json, os

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
from vllm import LLM, SamplingParams

model = LLM(model="models/dpo", enforce_eager=True)
turns = [{"role": "user", "content": "¿Dónde está el gato negro?"}]
(output,) = model.chat(turns, SamplingParams(temperature=0, max_tokens=8))
print(json.dumps([output.prompt, len(output.outputs[0].token_ids)]))
"""


def _run_script(copy: toy.Workspace, script: str, *arguments: Path) -> Any:
    """What a script prints on its last line."""
    printed = copy.run(sys.executable, "-c", script, *map(str, arguments))
    return json.loads(printed.splitlines()[-1])


@pytest.mark.usefixtures("bilingual")
def test_trl_trains_on_pairs_as_they_are(chain: toy.Chain, tmp_path: Path) -> None:
    count, updates, loss = _run_script(chain.first, TRL, tmp_path)
    assert (count, updates) == (len(read_rows(chain.first.root / "data/pairs.jsonl", Pair)), 1)
    assert loss == pytest.approx(math.log(2), abs=1e-3)  # nothing is learned yet: both sides have gained nothing


def test_peft_loads_the_adapter_and_finds_its_base(chain: toy.Chain) -> None:
    to_merged, to_base = _run_script(chain.first, PEFT)
    assert to_merged < 0.01 < to_base


def test_vllm_loads_the_merged_model_with_its_own_defaults(chain: toy.Chain) -> None:
    prompt, tokens = _run_script(chain.first, VLLM)
    assert prompt == "<|im_start|>user\n¿Dónde está el gato negro?<|im_end|>\n<|im_start|>assistant\n"
    assert 1 <= tokens <= 8


def test_lm_evals_own_command_line_runs_on_the_merged_model(chain: toy.Chain, tmp_path: Path) -> None:
    task = {
        "task": "toy",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(chain.first.root / "data/suites/benchmark.jsonl")},
            "cache_dir": str(tmp_path / "cache"),
        },
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\n",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "tasks").mkdir()
    YAML().dump(task, tmp_path / "tasks/toy.yaml")
    chain.first.run(
        *(sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", "pretrained=models/dpo", "--device", "cpu"),
        *("--tasks", "toy", "--include_path", str(tmp_path / "tasks"), "--output_path", str(tmp_path / "out")),
    )
    (path,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["n-samples"]["toy"]["effective"] == 12
    assert 0 <= found["results"]["toy"]["acc,none"] <= 1


def test_two_languages_have_figures_each_and_together(bilingual: tuple[toy.Workspace, toy.Running]) -> None:
    copy, running = bilingual
    assert toy.ran(running.ended())[-1] == "report"
    for suite in params.load(copy.root / "params.yaml").metrics.suites:
        measured = copy.root / "metrics/measured/base"
        found = json.loads((measured / f"{suite}.json").read_text(encoding="utf-8"))
        together, each = found["figures"], found["languages"]
        assert set(each) == {"es", "it"}
        assert together.keys() == each["es"].keys() | each["it"].keys() != set()
        items = read_rows(measured / f"{suite}.items.jsonl", SampleScore)
        for name, figure in together.items():
            parts = {code: of[name] for code, of in each.items() if name in of}
            assert figure["n"] == sum(part["n"] for part in parts.values()), (suite, name)
            if figure["kind"] in ("share", "mean"):
                for code, part in ({None: figure} | parts).items():
                    values = [row.values[0] for row in items if row.figure == name and code in (None, row.language)]
                    assert part["n"] == len(values)
                    assert part["value"] == pytest.approx(sum(values) / len(values)), (suite, name, code)
    language = json.loads((measured.parent / "base/language.json").read_text(encoding="utf-8"))
    threads = [row for row in read_rows(copy.root / "data/threads.jsonl", Thread) if row.split == "validation"]
    for code in ("es", "it"):
        assert language["languages"][code]["finished"]["n"] == sum(row.language == code for row in threads) > 0
    summary = json.loads((copy.root / "metrics/summary.json").read_text(encoding="utf-8"))
    assert {"es", "it"} <= set(summary)
    report = (copy.root / "metrics/report.md").read_text(encoding="utf-8")
    titles = [line for line in report.splitlines() if line in ("## All languages", "## Spanish", "## Italian")]
    assert titles == ["## All languages", "## Spanish", "## Italian"]
    judged = json.loads((copy.root / "metrics/scored/rubric.json").read_text(encoding="utf-8"))
    assert set(judged["languages"]) == {"es", "it"}
    assert judged["accuracy"]["plain"]["samples"] == sum(of["plain"]["samples"] for of in judged["languages"].values())
    rates = json.loads((copy.root / "metrics/win_rate/base.json").read_text(encoding="utf-8"))["rates"]
    assert set(rates) == {"", "es", "it"}
    for code, of in rates.items():
        held_out = [row for row in threads if code in ("", row.language)]
        for row in (*of["columns"].values(), *of["controls"].values()):
            assert row["wins"] + row["losses"] + row["ties"] + row["unparsed"] == len(held_out) > 0
        assert of["columns"]["base"]["alike"] == len(held_out)
    assert all(f"| `dpo`, other questions{code} | " in report for code in ("", " (es)", " (it)"))


# Training steps of every method, with a generator between them


STEPS: dict[str, tuple[str, dict[str, Any]]] = {  # by name: where it starts, and what it has of its own
    "cpt": ("base", {"method": "cpt", "data": "texts", "weights": {"kind": "full"}}),
    "sft": ("cpt", {"method": "sft", "data": "threads"}),
    "ipo": ("sft", {"method": "dpo", "losses": {"ipo": 1.0}, "label_smoothing": 0.0}),
    "kto": ("sft", {"method": "kto", "desirable_weight": 1.0, "undesirable_weight": 1.0}),
    "orpo": ("base", {"method": "orpo"}),
    "simpo": ("ipo", {"method": "simpo", "gamma": 1.0}),
}
OWN = ("losses", "label_smoothing")


def test_steps_of_every_method_run_as_one_pipeline(chain: toy.Chain) -> None:
    """A change of the last step runs that one only, and every model is another one."""
    folder = chain.first.root.parent.parent
    copy = toy.Workspace.made(folder / "methods", folder / "toy")

    def change(values: Any) -> None:
        values["raw"]["texts"] = [{"source": "file", "id": "texts.jsonl"}]
        dpo = values["adapter"].pop("dpo")
        values["adapter"] = {}
        for name, (start, own) in STEPS.items():
            common = {key: value for key, value in dpo.items() if key not in OWN}
            step = common | {"batch": 4, "accumulation": 1} | own | {"from": start}
            if step["data"] != "pairs":
                del step["beta"]
                step["health"] = {key: step["health"][key] for key in HEALTH}
            if name == "cpt":
                del step["health"], step["max_left_out"]
            if name == "kto":
                step["health"] = {key: step["health"][key] for key in (*HEALTH, "max_chosen_drop")}
            values["adapter"][name] = step
        del values["generated"]["guided"], values["pairs"]["rules"][1]
        values["generated"]["plain"] |= {"model": "sft", "engine": "transformers"}
        values["scored"]["rubric"] |= {"model": "cpt", "engine": "transformers"}
        columns = values["metrics"]["models"]
        for name in STEPS:
            columns[name] = columns["base"] | {"model": name}
        for name in ("dpo", *values["quantized"]):
            del columns[name]
        values["quantized"] = {}
        values["metrics"]["headline"] = "simpo"

    _edit_params(copy, change)
    texts = (message["content"] for row in toy.conversations() for message in row)
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    (copy.root / "data/sources/texts.jsonl").write_text("".join(lines), encoding="utf-8")
    printed = copy.run("dvc", "repro", "merged")
    ran = toy.ran(printed)
    assert [name for name in ran if name.startswith(("adapter", "merged", "generated"))] != []
    assert {f"{stage}@{name}" for stage in ("adapter", "merged") for name in STEPS} <= set(ran)
    assert ran.index("merged@cpt") < ran.index("merged@sft") < ran.index("generated@plain") < ran.index("adapter@ipo")
    made = [(copy.root / f"models/{name}/model.safetensors").read_bytes() for name in ("base", *STEPS)]
    assert len(set(made)) == len(made)

    _edit_params(copy, lambda values: values["adapter"]["simpo"].update(beta=1.0))
    assert toy.ran(copy.run("dvc", "repro", "merged")) == ["adapter@simpo", "merged@simpo"]


# What becomes stale, as `dvc status` names it; what follows runs where the outputs before it come out otherwise.


def _stale(copy: toy.Workspace) -> set[str]:
    return set(json.loads(copy.run("dvc", "status", "--json")))


def _words(stages: set[str]) -> set[str]:
    return {stage.split("@")[0] for stage in stages}


@pytest.fixture
def clean(chain: toy.Chain) -> Iterator[toy.Workspace]:
    """The second copy with nothing stale; what a test changes in files that git tracks or adds to src is undone."""
    copy = chain.second
    assert _stale(copy) == set()
    yield copy
    copy.run("git", "checkout", "-q", ".")
    copy.run("git", "clean", "-fdq", "src")
    copy.run("dvc", "checkout", "--force")


@pytest.mark.parametrize(
    ("package", "stale"),
    [
        ("trl", {"adapter"}),
        ("peft", {"adapter", "merged"}),
        ("bitsandbytes", {"generated", "scored", "calibrated", "adapter", "quantized", "metrics", "win_rate"}),
        ("lm-eval", {"metrics"}),
        ("vllm", {"generated", "scored", "calibrated", "adapter", "metrics", "win_rate"}),
        (
            "torch",
            {"models", "generated", "scored", "calibrated", "adapter", "merged", "quantized", "metrics", "win_rate"},
        ),
        ("moto", set()),
    ],
)
def test_another_engine_in_the_lock_makes_what_runs_on_it_stale(
    clean: toy.Workspace, package: str, stale: set[str]
) -> None:
    lock = clean.root / "requirements/cpu.txt"
    text, changed = re.subn(rf"^({package}(?:-cpu)?==)\S+", r"\g<1>99.0", lock.read_text(), flags=re.MULTILINE)
    assert changed == 1
    lock.write_text(text)
    clean.run(sys.executable, "requirements/engines.py", "requirements/cpu.txt")
    assert _words(_stale(clean)) == stale


def test_another_eos_token_makes_all_that_reads_the_model_stale(clean: toy.Workspace) -> None:
    path = clean.root / "models/base/tokenizer_config.json"
    found = path.read_text(encoding="utf-8")
    path.unlink()  # it may be a link into DVC's cache
    path.write_text(found.replace('"eos_token": "<|im_end|>"', '"eos_token": "<|im_start|>"'), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != found
    readers = {"generated", "scored", "calibrated", "adapter", "merged", "metrics", "win_rate"}
    assert _words(_stale(clean)) == {"models", *readers}


def test_parameters_reading_and_printing_make_nothing_stale(clean: toy.Workspace) -> None:
    for name in ("params", "references", "rows", "console", "files", "errors", "judging/__init__"):
        _append(clean.root / f"src/mothertongue/{name}.py", "\n# a comment\n")
    assert _stale(clean) == set()


@pytest.mark.parametrize(
    ("path", "stale"),
    [
        ("training/health.py", {"adapter@sft", "adapter@dpo"}),
        ("merging.py", {"merged@sft", "merged@dpo"}),
        ("quantization.py", {"quantized@nf4"}),
        ("judging/rubric.py", {"scored@rubric", "calibrated@rubric"}),
        ("judging/scores.py", {"scored@rubric", "calibrated@rubric", "win_rate@base"}),
        ("judging/pairwise.py", {"win_rate@base"}),
        ("prompts/pairwise/request/es.txt", {"win_rate@base"}),
        ("judging/calibration.py", {"calibrated@rubric"}),
        ("judging/grades.py", set()),
        ("prompts/rubric/request/es.txt", {"scored@rubric", "calibrated@rubric"}),
        ("prompts/grades/request/en.txt", set()),
    ],
)
def test_a_module_makes_its_own_stage_stale(clean: toy.Workspace, path: str, stale: set[str]) -> None:
    _append(clean.root / "src/mothertongue" / path, "\n# a comment\n")
    assert _stale(clean) == stale


def test_another_level_makes_its_own_stages_stale(clean: toy.Workspace) -> None:
    def change(values: Any) -> None:
        values["quantized"]["small"] = {"model": "base", "format": "nf4"}
        values["metrics"]["models"]["small"] = {"model": "small", "engine": "transformers", "system_prompt": False}

    _edit_params(clean, change)
    assert _stale(clean) == {"quantized@small", "metrics@small", "win_rate@base", "report"}


def test_one_suite_less_makes_no_model_stale(clean: toy.Workspace) -> None:
    _edit_params(clean, lambda values: values["metrics"]["suites"].remove("translation"))
    columns = params.load(clean.root / "params.yaml").metrics.models
    assert _stale(clean) == {*(f"metrics@{name}" for name in columns), "win_rate@base", "report"}


def test_a_new_suite_makes_no_model_stale(clean: toy.Workspace) -> None:
    package = clean.root / "src/mothertongue"
    (package / "suites/new.py").write_text('"""A new suite."""\n', encoding="utf-8")
    for module in ("suites/__init__.py", "figures.py", "params.py"):
        _append(package / module, "\n# a new suite\n")
    columns = params.load(clean.root / "params.yaml").metrics.models
    assert _stale(clean) == {*(f"metrics@{name}" for name in columns), "report"}


# Entries of params.yaml that come and go, in a workspace that was used


@pytest.fixture
def used(chain: toy.Chain, tmp_path: Path) -> toy.Workspace:
    """A whole copy of the second copy, to change at will."""
    return chain.second.duplicated(tmp_path / "used")


def test_a_new_kind_of_judge_makes_no_other_judge_stale(used: toy.Workspace) -> None:
    package = used.root / "src/mothertongue"
    (package / "prompts/new/request").mkdir(parents=True)
    (package / "prompts/new/request/en.txt").write_text("Is {answer} good?\n", encoding="utf-8")
    (package / "judging/new.py").write_text('"""A judge of a new kind."""\n', encoding="utf-8")
    _append(package / "params.py", '\n\nclass NewJudge(Section):\n    """A judge."""\n\n    kind: Literal["new"]\n')
    _edit_params(used, lambda values: values["scored"].update(second=dict(values["scored"]["rubric"])))
    assert _stale(used) == {"scored@second", "calibrated@second", "pairs", "report"}  # two read the section in whole

    before = _misses(used.store)
    assert toy.ran(used.run("dvc", "repro", "scored@second")) == ["scored@second"]
    assert _misses(used.store) == {**before, "scored second": 0}  # the same judge by another name
    verdicts = [(used.root / f"data/scored/{name}.jsonl").read_text(encoding="utf-8") for name in ("rubric", "second")]
    assert len(verdicts[0].splitlines()) == len(verdicts[1].splitlines()) > 0
    assert _stale(used) == {"calibrated@second", "pairs", "report"}


def test_a_removed_generator_leaves_nothing_and_comes_back_from_the_cache(used: toy.Workspace, tmp_path: Path) -> None:
    committed, before = (used.root / "params.yaml").read_text(encoding="utf-8"), _lock(used)

    def remove(values: Any) -> None:
        del values["generated"]["guided"]
        rules = [rule for rule in values["pairs"]["rules"] if "guided" not in (rule["chosen"], rule["rejected"])]
        assert len(rules) == len(values["pairs"]["rules"]) - 1
        values["pairs"]["rules"] = rules

    _edit_params(used, remove)
    answers = used.root / "data/generated/guided.jsonl"
    assert answers.exists()
    printed = used.run(sys.executable, "-m", "mothertongue.check")
    outputs = ("data/generated/guided.jsonl", "metrics/generated/guided.json")
    assert printed == "".join(f"{path}: removed, because no entry of params.yaml makes it\n" for path in outputs)
    assert not answers.exists()
    assert _lock(used) == {name: stage for name, stage in before.items() if name != "generated@guided"}
    assert set(toy.ran(used.run("dvc", "repro", "pairs"))) == {"scored@rubric", "calibrated@rubric", "pairs"}

    base = Path(params.load(used.root / "params.yaml").models["base"].id)
    fresh = replace(toy.Workspace.made(tmp_path / "fresh", base), store=used.store)
    (fresh.root / "params.yaml").write_bytes((used.root / "params.yaml").read_bytes())
    fresh.run("dvc", "repro", "pairs")
    expected, found = _lock(fresh), _lock(used)
    assert {"models@base", "generated@plain", "scored@rubric", "pairs"} <= set(expected)
    assert {name: found[name] for name in expected} == expected

    misses = _misses(used.store)
    (used.root / "params.yaml").write_text(committed, encoding="utf-8")
    assert used.run(sys.executable, "-m", "mothertongue.check") == ""
    assert toy.ran(used.run("dvc", "repro", "pairs")) == []
    assert (_lock(used), _misses(used.store)) == (before, misses)
    assert answers.exists()


# Only what is new is computed. From here on the first copy is busy with the experiment below.


@pytest.mark.usefixtures("experiment")
def test_one_more_conversation_computes_its_own_rows(chain: toy.Chain) -> None:
    copy = chain.second
    before, old = _misses(copy.store), read_rows(copy.root / "data/threads.jsonl", Thread)
    answers = {name: (copy.root / f"data/generated/{name}.jsonl").read_text() for name in ("plain", "guided")}
    toy.write_conversations(
        copy.root / "data/sources/toy.jsonl", [*toy.conversations(), toy.conversations((THING,))[0]]
    )
    printed = copy.run("dvc", "repro", "pairs")
    first, last = ["raw", "filtered", "threads"], "pairs"
    ran = toy.ran(printed)
    assert (ran[:3], ran[-1]) == (first, last)
    assert sorted(ran[3:-1]) == ["calibrated@rubric", "generated@guided", "generated@plain", "scored@rubric"]
    (new,) = [row for row in read_rows(copy.root / "data/threads.jsonl", Thread) if row not in old]
    generated = params.load(copy.root / "params.yaml").generated
    texts = [new.reference]
    expected = dict(before)
    for name, generator in generated.items():
        rows = read_rows(copy.root / f"data/generated/{name}.jsonl", Answer)
        mine = [row for row in rows if row.thread == new.id]
        assert len(mine) == generator.n
        assert set(answers[name].splitlines()) == {row.model_dump_json() for row in rows if row not in mine}
        expected[f"generated {name}"] += generator.n
        texts += [row.text for row in mine]
    expected["scored rubric"] += len(set(texts))  # two equal answers are one question to the judge
    assert _misses(copy.store) == expected


@pytest.mark.usefixtures("experiment")
def test_another_rubric_computes_no_answers(chain: toy.Chain) -> None:
    copy = chain.second
    before = _misses(copy.store)
    rubric = copy.root / "src/mothertongue/prompts/rubric/request/es.txt"
    rubric.write_text(f"{rubric.read_text(encoding='utf-8').strip()} Sé justo.\n", encoding="utf-8")
    printed = copy.run("dvc", "repro", "pairs")
    assert set(toy.ran(printed)) - {"pairs"} == {"scored@rubric", "calibrated@rubric"}
    after = _misses(copy.store)
    threads = len(read_rows(copy.root / "data/threads.jsonl", Thread))
    assert after["scored rubric"] - before["scored rubric"] > threads
    assert {**after, "scored rubric": 0} == {**before, "scored rubric": 0}


# Killing


def _until(running: toy.Running, happened: Callable[[], bool]) -> None:
    while running.process.poll() is None and not happened():
        time.sleep(0.01)


@pytest.mark.usefixtures("experiment")
def test_a_killed_generation_continues_from_the_sample_store(chain: toy.Chain, tmp_path: Path) -> None:
    copy = chain.second.copied(tmp_path)
    _edit_params(copy, lambda values: values["generated"]["plain"].update(n=8))
    arguments = ("plain", "data/threads.jsonl", "models/base")
    elsewhere = toy.Workspace(copy.root, tmp_path / "undisturbed")
    undisturbed = elsewhere.stage("generated", *arguments, "undisturbed.jsonl", "undisturbed.json")

    Store(copy.store)  # the tables are there before the stage is
    running = copy.stage("generated", *arguments, "killed.jsonl", "killed.json")
    with closing(sqlite3.connect(copy.store / "samples.sqlite", timeout=60, isolation_level=None)) as db:

        def kept() -> int:
            return int(db.execute("select count(*) from samples").fetchone()[0])

        _until(running, lambda: kept() > 0)
        db.execute("begin immediate")  # whatever batch is in flight can be asked, but not kept
        running.kill()
        first = kept()
        (batch,) = db.execute("select max(misses) from counts").fetchone()
    rows = 8 * len(read_rows(copy.root / "data/threads.jsonl", Thread))
    assert 0 < first < rows
    assert first % batch == 0
    assert not (copy.root / "killed.jsonl").exists()

    printed = copy.stage("generated", *arguments, "killed.jsonl", "killed.json").ended()
    assert f"{rows} calls, {first} hits in the sample store ({first / rows:.0%}), {rows - first} misses" in printed
    undisturbed.ended()
    assert (copy.root / "killed.jsonl").read_bytes() == (copy.root / "undisturbed.jsonl").read_bytes()
    assert rows <= _misses(copy.store)["generated plain"] <= rows + batch
    assert _misses(elsewhere.store)["generated plain"] == rows


def _newest_checkpoint(store: Path, ended: Collection[Path]) -> int:
    """Its update; 0 where there is none of a training that goes on. The folders `ended` are of others."""
    folders = [folder for folder in (store / "training").glob("*") if folder not in ended]
    kept = [path for folder in folders for path in folder.glob("kept-*")]  # not in those, which may be gone meanwhile
    return max((int(path.name.removeprefix("kept-")) for path in kept), default=0)


@pytest.mark.usefixtures("experiment")
def test_a_killed_training_leaves_no_adapter_and_the_next_one_the_same_bytes(chain: toy.Chain, tmp_path: Path) -> None:
    chain.second.run("git", "checkout", "-q", ".")
    chain.second.run("dvc", "checkout")
    copy = chain.second.copied(tmp_path)
    adapter, curves = copy.root / "models/adapter", copy.root / "metrics/curves"

    def made() -> dict[str, bytes]:
        folders = (adapter, *(curves / name for name in CURVES))  # others are no training's
        paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(copy.root).as_posix(): path.read_bytes() for path in paths}

    undisturbed = made()
    assert {"models/adapter/dpo/adapter_model.safetensors", "metrics/curves/loss/dpo.csv"} <= set(undisturbed)
    shutil.rmtree(adapter)
    shutil.rmtree(curves)
    shutil.rmtree(copy.store / "training", ignore_errors=True)  # of the experiment, which is another training

    for step, start, data in (("sft", "base", "threads"), ("dpo", "sft", "pairs")):
        arguments = (step, f"models/{start}", f"data/{data}.jsonl", f"models/adapter/{step}")
        arguments = (*arguments, f"metrics/adapter/{step}.json", "metrics/curves")
        ended = {path.parent for path in copy.store.glob("training/*/ended")}  # these are removed by the next one
        for _ in range(2):
            before = _newest_checkpoint(copy.store, ended)
            running = copy.stage("adapter", *arguments)
            _until(running, lambda: _newest_checkpoint(copy.store, ended) > before)  # noqa: B023
            running.kill()
            assert (adapter / f".{step}.partial").exists()
            assert not (adapter / step).exists()
        copy.stage("adapter", *arguments).ended()
    assert made() == undisturbed
    assert sorted(path.name for path in adapter.iterdir()) == ["dpo", "sft"]
    (left,) = (copy.store / "training").iterdir()  # until the next training
    assert (left / "ended").exists()


@pytest.mark.usefixtures("experiment")
def test_dvc_checkout_restores_what_a_failed_stage_had_made(chain: toy.Chain) -> None:
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
    levels, printed = ("nf4",), experiment.ended()
    assert re.search(r"adapter dpo reference: (\d+) calls, \1 hits in the sample store \(100%\), 0 misses", printed)
    assert toy.ran(printed) == [
        "adapter@dpo",
        "merged@dpo",
        *(f"quantized@{level}" for level in levels),
        *(f"metrics@{name}" for name in ("dpo", *levels)),
        "win_rate@base",
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
    assert [row["adapter.dpo.beta"] for row in (now, before, found)] == ["0.3", "0.1", "0.3"]
    summary = json.loads((copy.root / "metrics/summary.json").read_text(encoding="utf-8"))
    figures = [
        f"{name}.{part}" if part else name
        for name, value in summary.items()
        for part in (value if isinstance(value, dict) else ("",))
    ]
    assert 10 <= len(figures) <= 17
    assert [now[name] for name in figures] == [found[name] for name in figures]
    moved = {name for name in figures if now[name] != before[name]}
    assert moved

    lines = copy.run("dvc", "metrics", "diff", "--md").strip().splitlines()
    columns, _, *cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert columns == ["Path", "Metric", "HEAD", "workspace", "Change"]
    assert {(path, name) for path, name, *_ in cells} == {("metrics/summary.json", name) for name in moved}

    plots = json.loads(copy.run("dvc", "plots", "diff", "HEAD", "--json"))["data"]
    for curve in CURVES:
        path = f"metrics/curves/{curve}/dpo.csv"
        header, *rows = (copy.root / path).read_text(encoding="utf-8").splitlines()
        columns = header.count(",")
        found = [plot for name, each in plots.items() if name.endswith(path) for plot in each]
        assert all(set(plot["revisions"]) == {"HEAD", "workspace"} for plot in found)
        points = [point for plot in found for point in plot["content"]["data"]["values"]]
        if columns > 1:  # a plot of several columns names the one of each point
            points = [point for point in points if "field" in point]
        assert len({(point["rev"], point.get("field"), point["step"]) for point in points}) == 2 * columns * len(rows)
