"""params.yaml: what loads, and the whole message of each mistake."""

import shutil
from pathlib import Path

import pytest
from conftest import PARAMS
from project import PACKAGE, ROOT
from ruamel.yaml import YAML

from mothertongue import params
from mothertongue.errors import BadInput

INSIDE = "input should be the path of a file in data/sources, from there, got "
COMMIT = "input should be a commit of the repository, 40 hex digits, and no branch or tag, got "


def changed(folder: Path, *changes: tuple[str, str]) -> Path:
    """The example with some of its text replaced."""
    text = PARAMS
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the example"
        text = text.replace(old, new)
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        params.load(path)
    return caught.value.message


def at(path: Path, expected: str) -> str:
    """The path before each line."""
    return "\n".join(f"{path}:{line}" for line in expected.splitlines())


def test_the_committed_parameters_load() -> None:
    values = params.load(ROOT / "params.yaml")
    assert values.language == "es"
    assert set(params.Params.model_fields) == set(values.model_dump())


def test_the_parameters_that_readme_shows_load_over_the_committed_ones(tmp_path: Path) -> None:
    yaml = YAML(typ="safe", pure=True)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in readme.split("```yaml\n")[1:]]
    assert len(blocks) >= 3
    for block in blocks:
        values = yaml.load(ROOT / "params.yaml")
        for section, changed in yaml.load(block).items():
            values[section] |= changed
        yaml.dump(values, tmp_path / "params.yaml")
        loaded = params.load(tmp_path / "params.yaml")
    # the last block is for a larger model
    asked = max(generator.max_tokens for generator in loaded.generated.values())
    assert loaded.metrics.answer_tokens >= asked, "what is measured would be where answers were cut"
    demo = params.load(ROOT / "params.yaml").adapter
    assert loaded.adapter.rank > demo.rank
    assert loaded.adapter.alpha / loaded.adapter.rank == demo.alpha / demo.rank
    assert loaded.adapter.batch * loaded.adapter.accumulation >= 16
    sampled = {name for rule in loaded.pairs.rules for name in (rule.chosen, rule.rejected)}
    assert {"best", "worst"} <= sampled


def test_code_that_stands_beside_the_parameters_is_what_runs(workplace: Path) -> None:
    """As in a copy that `dvc exp run --temp` makes, while the environment has the library of where it was made."""
    shutil.copytree(PACKAGE, "src/mothertongue")
    with pytest.raises(BadInput) as caught:
        params.load()
    assert caught.value.message == (
        f"src/mothertongue/params.py is not what runs, {params.__file__} is; export PYTHONPATH=src and run again"
    )
    shutil.rmtree("src")
    assert params.load() == params.load(workplace / "params.yaml")


@pytest.mark.parametrize(
    ("old", "new", "section", "name", "value"),
    [
        # YAML 1.1 reads the first as text and the second as false; YAML 1.2 does not, and neither does DVC
        ("learning_rate: 2.0e-4", "learning_rate: 5e-7", "adapter", "learning_rate", 5e-7),
        ('language: "es"', "language: no", None, "language", "no"),
        ('language: "es"', "language: it", None, "language", "it"),
        ("  beta: 0.1", "  beta: 1", "adapter", "beta", 1.0),
        ("  epochs: 1", "  epochs: 0.5", "adapter", "epochs", 0.5),
    ],
)
def test_what_is_read(tmp_path: Path, old: str, new: str, section: str | None, name: str, value: object) -> None:
    values = params.load(changed(tmp_path, (old, new)))
    found = getattr(getattr(values, section) if section else values, name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("said", "replies"), [("", "best"), (", replies: best", "best"), (", replies: all", "all")])
def test_which_replies_are_followed(tmp_path: Path, said: str, replies: str) -> None:
    (source,) = params.load(changed(tmp_path, ("format: messages}", f"format: oasst_trees{said}}}"))).raw.sources
    assert isinstance(source, params.FileConversations)
    assert source.replies == replies


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # unknown and missing
        ("  beta: 0.1", "  beta: 0.1\n  betta: 1", "47: adapter.betta: unknown parameter; remove it or mend its name"),
        ("  beta: 0.1\n", "", "42: adapter.beta: missing; add it"),
        ("metrics:\n", "metric:\n", ("1: metrics: missing; add it\n"
         "65: metric: unknown parameter; remove it or mend its name")),
        (" min_margin: 1", " margin: 1", ("40: pairs.rules.0.min_margin: missing; add it\n"
         "40: pairs.rules.0.margin: unknown parameter; remove it or mend its name")),
        # type
        ("  rank: 16", "  rank: 16.5", "43: adapter.rank: input should be a valid integer, got 16.5"),
        ("  rank: 16", '  rank: "16"', "43: adapter.rank: input should be a valid integer, got '16'"),
        ("  beta: 0.1", "  beta: high", "46: adapter.beta: input should be a valid number, got 'high'"),
        ("  beta: 0.1", "  beta:", "46: adapter.beta: input should be a valid number, got None"),
        ("guide: false", "guide: no", "23: generated.plain.guide: input should be a valid boolean, got 'no'"),
        ("seed: 1\n", "seed: 2026-01-01\n", "2: seed: input should be a valid integer, got datetime.date(2026, 1, 1)"),
        ("seed: 1\n", f"seed: {2**32}\n", "2: seed: input should be less than 4294967296, got 4294967296"),
        ('language: "es"', "language: 7", "1: language: input should be a valid string, got 7"),
        ("merged:\n", "merged: 5\nrest:\n", ("59: merged: input should be a mapping of names to values, got 5\n"
         "60: rest: unknown parameter; remove it or mend its name")),
        # range
        ("  beta: 0.1", "  beta: -1", "46: adapter.beta: input should be greater than 0, got -1"),
        ("  rank: 16", "  rank: 0", "43: adapter.rank: input should be greater than or equal to 1, got 0"),
        ("max_cut: 0.05", "max_cut: 2", "55: adapter.max_cut: input should be less than or equal to 1, got 2"),
        ("learning_rate: 2.0e-4", "learning_rate: .inf",
         "48: adapter.learning_rate: input should be a finite number, got inf"),
        ("warmup: 0.1", "warmup: .nan", "50: adapter.warmup: input should be a finite number, got nan"),
        ("seed: 1\n", "seed: -1\n", "2: seed: input should be greater than or equal to 0, got -1"),
        ("scheduler: cosine", "scheduler: cosin",
         "49: adapter.scheduler: input should be 'linear', 'cosine' or 'constant', got 'cosin'"),
        ("[nf4, int8]", "[nf4, int9]", "63: quantized.1: input should be 'nf4' or 'int8', got 'int9'"),
        ("[nf4, int8]", "[]", "63: quantized: list should have at least 1 item after validation, not 0, got []"),
        ("[nf4, int8]", "[nf4, int8, nf4]", "63: quantized.2: 'nf4' stands there already; delete one"),
        # what is measured
        ("split: validation", "split: train", "66: metrics.split: input should be 'validation' or 'test', got 'train'"),
        ("validation: 0.2", "validation: 0",
         "66: metrics.split: threads.validation is 0, so there is nothing to measure; raise it"),
        ("{model: merged,", "{model: dpo,",
         ("70: metrics.models.merged.model: string should match pattern '^(base|merged|quantized/[a-z0-9_]+)$',"
          " got 'dpo'")),
        ("[nf4, int8]", "[nf4]",
         "72: metrics.models.int8.model: no 'quantized/int8'; take one of base, merged, quantized/nf4"),
        ("{model: quantized/int8,", "{model: quantized/nf4,",
         ("72: metrics.models.int8: measures what stands there already; delete one\n"
          "63: quantized.1: no entry of metrics.models measures quantized/int8; add one, or delete the level")),
        ("baselines: [base, prompted]", "baselines: [base, dpo]",
         "73: metrics.baselines.1: no 'dpo'; take one of base, int8, merged, nf4, prompted"),
        ("baselines: [base, prompted]", "baselines: [base, prompted, merged, nf4, int8]",
         "67: metrics.models: nothing but baselines; add a model to compare with them"),
        ("    prompted: {", "    Prompted: {",
         ("69: metrics.models.Prompted: string should match pattern '^[a-z][a-z0-9_]*$', got 'Prompted'")),
        ('language: "es"', "language: Spanish",
         "1: language: string should match pattern '^[a-z]{2,3}$', got 'Spanish'"),
        ("  plain: {", "  Plain: {",
         "23: generated.Plain: string should match pattern '^[a-z][a-z0-9_]*$', got 'Plain'"),
        ("  sources:\n    - {source: file, id: dialogues.jsonl, format: messages}", "  sources: []",
         "9: raw.sources: list should have at least 1 item after validation, not 0, got []"),
        # what names one thing today and another tomorrow, or nothing that DVC follows
        ("id: dialogues.jsonl", 'id: ../dialogues.jsonl',
         f"10: raw.sources.0.id: {INSIDE}'../dialogues.jsonl'"),
        ("id: dialogues.jsonl", 'id: /dialogues.jsonl',
         f"10: raw.sources.0.id: {INSIDE}'/dialogues.jsonl'"),
        ("id: dialogues.jsonl", 'id: a/../../dialogues.jsonl',
         f"10: raw.sources.0.id: {INSIDE}'a/../../dialogues.jsonl'"),
        ("id: dialogues.jsonl", 'id: ./dialogues.jsonl',
         f"10: raw.sources.0.id: {INSIDE}'./dialogues.jsonl'"),
        ("id: dialogues.jsonl", 'id: a//dialogues.jsonl',
         f"10: raw.sources.0.id: {INSIDE}'a//dialogues.jsonl'"),
        ("id: dialogues.jsonl", 'id: .',
         f"10: raw.sources.0.id: {INSIDE}'.'"),
        ("id: dialogues.jsonl", 'id: ""',
         "10: raw.sources.0.id: input should be text that can be printed, got ''"),
        ("id: dialogues.jsonl", 'id: "a\\0b.jsonl"',
         "10: raw.sources.0.id: input should be text that can be printed, got 'a\\x00b.jsonl'"),
        ("{source: folder, id: toy}", "{source: hub, id: a/b, revision: main}",
         f"5: base.model.revision: {COMMIT}'main'"),
        ("{source: folder, id: toy}", "{source: hub, id: a/b, revision: 0123456789abcdef0123456789abcdef0123456}",
         f"5: base.model.revision: {COMMIT}'0123456789abcdef0123456789abcdef0123456'"),
        ("{source: file, id: dialogues.jsonl, format: messages}",
         "{source: hub, id: a/b, revision: v1.0, split: train, format: messages}",
         f"10: raw.sources.0.revision: {COMMIT}'v1.0'"),
        ("format: messages}", "format: messages}\n    - {source: file, id: dialogues.jsonl, format: oasst_trees}",
         "11: raw.sources.1: stands there already; delete one"),
        # what would make nothing new, or nothing that is looked at
        ("    temperature: 0.5", "    temperature: 0",
         "29: generated.other.n: at temperature 0 all 2 samples are equal; make it 1, or raise temperature"),
        ("    int8: {model: quantized/int8, system_prompt: false}\n", "",
         "63: quantized.1: no entry of metrics.models measures quantized/int8; add one, or delete the level"),
        # one of several kinds
        ("{source: folder, id: toy}", "{source: web, id: toy}",
         "5: base.model.source: input should be one of 'package', 'hub', 'folder', got 'web'"),
        ("{source: folder, id: toy}", "{id: toy}", "5: base.model.source: missing; add it"),
        ("{source: folder, id: toy}", "{source: hub, id: toy}", "5: base.model.revision: missing; add it"),
        ("{source: folder, id: toy}", "base",
         "5: base.model: input should be a mapping of names to values, got 'base'"),
        ("model: base, guide", "model: bass, guide", "23: generated.plain.model: input should be 'base', got 'bass'"),
        ("      source: folder\n", "      source: hob\n",
         "26: generated.other.model.source: input should be one of 'package', 'hub', 'folder', got 'hob'"),
        ("      id: elsewhere", "      id: elsewhere\n      revison: main",
         "28: generated.other.model.revison: unknown parameter; remove it or mend its name"),
        ("rubric: {kind: rubric", "rubric: {kind: rubrik",
         "35: scored.rubric.kind: input should be 'rubric', got 'rubrik'"),
        ("min_mass: 0.5", "min_mass: 1.5",
         "35: scored.rubric.min_mass: input should be less than or equal to 1, got 1.5"),
        ("format: messages", "format: message",
         "10: raw.sources.0.format: input should be 'oasst_trees', 'oasst_messages' or 'messages', got 'message'"),
        ("format: messages}", "format: messages, replies: best}",
         "10: raw.sources.0.replies: format messages has no ranked replies; remove it"),
        ("format: messages}", "format: oasst_trees, replies: worst}",
         "10: raw.sources.0.replies: input should be 'best' or 'all', got 'worst'"),
        # names that one section takes from another
        ("chosen: reference", "chosen: refrence",
         "40: pairs.rules.0.chosen: no 'refrence'; take one of best, other, plain, reference, worst"),
        ("rejected: plain", "rejected: plan",
         "40: pairs.rules.0.rejected: no 'plan'; take one of best, other, plain, reference, worst"),
        ("judge: second", "judge: bleu",
         "40: pairs.rules.0.judge: no 'bleu'; take one of assumption, rubric, second"),
        # by assumption nobody ranks
        ("judge: second", "judge: assumption",
         ("40: pairs.rules.0.min_margin: by assumption there are no scores; make it 0, or take a judge that ranks")),
        ("chosen: reference, rejected: plain, judge: second, min_margin: 1",
         "chosen: best, rejected: plain, judge: assumption, min_margin: 0",
         ("40: pairs.rules.0.chosen: by assumption nothing is best; take reference or a generator, or a judge that"
          " ranks")),
        ("rejected: plain, judge: second, min_margin: 1", "rejected: worst, judge: assumption, min_margin: 0",
         ("40: pairs.rules.0.rejected: by assumption nothing is worst; take reference or a generator, or a judge that"
          " ranks")),
        ("rejected: plain, judge: second, min_margin: 1", "rejected: reference, judge: assumption, min_margin: 0",
         "40: pairs.rules.0.rejected: by assumption 'reference' is not better than itself; take another"),
        ("  second: {", "  assumption: {",
         ("36: scored.assumption: the name has a meaning in pairs; take another\n"
          "40: pairs.rules.0.judge: no 'second'; take one of assumption, rubric")),
        ("max_cut_rejected: 0.5", "max_cut_rejected: 50",
         "39: pairs.max_cut_rejected: input should be less than or equal to 1, got 50"),
        ("  other:\n", "  best:\n", "24: generated.best: the name has a meaning in pairs; take another"),
        ("min_margin: 1}]",
         ("min_margin: 1},\n"
          "    {name: reference_over_plain, chosen: best, rejected: worst, judge: second, min_margin: 1}]"),
         "41: pairs.rules.1.name: 'reference_over_plain' names another rule; take another name"),
        ("test: 0.3", "test: 0", "20: threads.test: input should be greater than 0, got 0"),
        ("test: 0.3", "test: 0.8", "18: threads: validation and test leave nothing to train on; make them smaller"),
        # no YAML at all
        ("adapter:\n", "adapter: [\n", "44: not YAML (expected ',' or ']', but got ':'); mend it"),
        ("  beta: 0.1", "  beta: 0.1\n  beta: 0.2",
         '47: not YAML (found duplicate key "beta" with value "0.2" (original value: "0.1")); mend it'),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = changed(tmp_path, (old, new))
    assert message(path) == at(path, expected)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        ('language: "es"', "language: 7"),
        ("  dropout: 0.0", "  dropout: 2"),
        ("  alpha: 32\n", ""),
        ("  beta: 0.1", "  bata: 0.1"),
        ("  second: {kind: rubric", "  second: {kind: referee"),
    )
    expected = [
        "1: language: input should be a valid string, got 7",
        "36: scored.second.kind: input should be 'rubric', got 'referee'",
        "42: adapter.alpha: missing; add it",
        "44: adapter.dropout: input should be less than or equal to 1, got 2",
        "42: adapter.beta: missing; add it",
        "45: adapter.bata: unknown parameter; remove it or mend its name",
    ]
    assert message(path) == at(path, "\n".join(expected))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "1: whole file: input should be a mapping of names to values, got None"),
        (b"- 1\n- 2\n", "1: whole file: input should be a mapping of names to values, got [1, 2]"),
        (b"language: \xff\n", " not UTF-8 (invalid start byte at byte 11); save it as UTF-8"),
        (
            b"a: !!python/object:os.system x\n",
            (
                "1: not YAML (could not determine a constructor for the tag 'tag:yaml.org,2002:python/object:os.system'"
                "); mend it"
            ),
        ),
    ],
)
def test_what_is_no_parameter_file(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    assert message(path) == at(path, expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere.yaml", " cannot be read (No such file or directory); run from the project's top folder"),
        (".", " cannot be read (Is a directory); run from the project's top folder"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, expected: str) -> None:
    assert message(tmp_path / name) == at(tmp_path / name, expected)


@pytest.mark.parametrize("value", ["2026-13-45", "[" * 3000])
def test_a_value_that_yaml_cannot_make_is_no_traceback(workplace: Path, value: str) -> None:
    path = workplace / "params.yaml"
    path.write_text(PARAMS.replace("seed: 1\n", f"seed: {value}\n"), encoding="utf-8")
    with pytest.raises(BadInput, match=r"params\.yaml.*; mend it$"):
        params.load(path)
