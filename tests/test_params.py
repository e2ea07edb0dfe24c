"""params.yaml: what loads, and the whole message of each mistake."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import PARAMS, WIN_RATE, step_line
from project import PACKAGE, ROOT
from ruamel.yaml import YAML

from mothertongue import languages, params
from mothertongue.errors import BadInput

INSIDE = "input should be the path of a file, relative to data/sources, got "
COMMIT = "input should be a commit of the repository, 40 hex digits, and no branch or tag, got "
LAYERS = "input should be all-linear, or a list of names of layers, got "
KNOWN = ", ".join(languages.NAMES)
BASE = "{source: folder, id: toy, dtype: float32}"
FILE = "{source: file, id: dialogues.jsonl, format: messages}"
ROUNDS = "rounds: {prompts: 8, judge: own, max_drift: 0.25}\n"
ELSEWHERE = "    source: folder\n    id: /models/elsewhere\n    dtype: float32\n"
SERVER = "    source: server\n    url: http://h/v1\n    id: chat\n    revision: '1'\n"
URL = "input should be http:// or https:// and a host, without user, query or fragment, got "
REMOTE = "'elsewhere' is behind a server, so its weights are not here to"
SOURCES = "'package', 'hub', 'folder', 'version', 'server'"
REMOTE_OTHER = ("    model: elsewhere\n    engine: transformers", "    model: elsewhere\n    engine: server")
PLAIN = "  plain:\n    model: base\n    engine: transformers\n    system_prompt: false\n    train_share: 1.0\n"


def changed(folder: Path, *changes: tuple[str, str]) -> Path:
    """The example with some of its text replaced."""
    text = PARAMS
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in the example"
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
    assert values.languages == ["es"]
    assert set(params.Params.model_fields) == set(values.model_dump())


def test_the_parameters_in_readme_load_over_the_committed_ones(tmp_path: Path) -> None:
    yaml = YAML()  # which keeps the order of the steps
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in readme.split("```yaml\n")[1:]]
    assert blocks
    for block in blocks:
        values: dict[str, Any] = yaml.load(ROOT / "params.yaml")
        for section, new in yaml.load(block).items():
            values[section] = values[section] | new if isinstance(new, dict) else new
        yaml.dump(values, tmp_path / "params.yaml")
        params.load(tmp_path / "params.yaml")


def test_the_recipe_for_a_larger_model_samples_trains_and_measures_more_than_the_demo() -> None:
    large, demo = (params.load(ROOT / f"recipes/{name}.yaml") for name in ("spanish", "spanish.demo"))
    longest = max(generator.max_tokens for generator in large.generated.values())
    assert longest > max(generator.max_tokens for generator in demo.generated.values())
    assert large.metrics.answer_tokens >= longest, "figures would depend on where answers are cut"
    step, small = large.adapter["dpo"], demo.adapter["dpo"]
    assert isinstance(step.weights, params.LowRank)
    assert isinstance(small.weights, params.LowRank)
    assert step.weights.rank > small.weights.rank
    assert step.weights.alpha / step.weights.rank == small.weights.alpha / small.weights.rank
    assert step.batch * step.accumulation >= 16
    assert step.max_length > longest
    assert large.filtered.max_words > demo.filtered.max_words


def test_the_code_beside_the_parameters_has_to_be_the_code_that_runs(workplace: Path) -> None:
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
        ("learning_rate: 2.0e-4", "learning_rate: 5e-7", "adapter.dpo", "learning_rate", 5e-7),
        ('languages: ["es"]', "languages: [no]", "", "languages", ["no"]),
        ('languages: ["es"]', "languages: [it, es, pt]", "", "languages", ["it", "es", "pt"]),
        ("  beta: 0.1", "  beta: 1", "adapter.dpo", "beta", 1.0),
        ("  epochs: 1", "  epochs: 0.5", "adapter.dpo", "epochs", 0.5),
        ("from: base", "from: elsewhere", "adapter.dpo", "start", "elsewhere"),
        (FILE, FILE, "raw.sources.0", "language", None),
        (FILE, FILE.replace("}", ", language: es}"), "raw.sources.0", "language", "es"),
        (FILE, FILE, "raw", "texts", []),
        ("targets: all-linear", "targets: [q_proj, v_proj]", "adapter.dpo.weights", "targets", ["q_proj", "v_proj"]),
        ("{sigmoid: 1.0, sft: 1.0}", "{ipo: 1, sft: 0.2}", "adapter.dpo", "losses", {"ipo": 1.0, "sft": 0.2}),
    ],
)
def test_values(tmp_path: Path, old: str, new: str, section: str, name: str, value: object) -> None:
    found: Any = params.load(changed(tmp_path, (old, new)))
    for part in section.split(".") if section else ():
        match found:
            case dict():
                found = found[part]
            case list():
                found = found[int(part)]
            case _:
                found = getattr(found, part)
    assert getattr(found, name) == value
    assert type(getattr(found, name)) is type(value)


@pytest.mark.parametrize(("text", "replies"), [("best", "best"), ("all", "all"), ("ranked", "ranked")])
def test_which_replies_are_followed(tmp_path: Path, text: str, replies: str) -> None:
    (source,) = params.load(
        changed(tmp_path, ("format: messages}", f"format: oasst_trees, replies: {text}}}"))
    ).raw.sources
    assert isinstance(source, params.FileConversations)
    assert source.replies == replies


WIN_ENTRY = WIN_RATE.splitlines()[1]
TEXTS = "{source: file, id: texts.jsonl}"
SCORES = "ratings: {prompt: q, answer: a, scores: {good: 1}}"
BY_PEOPLE = ("chosen: reference, rejected: plain, judge: second", "chosen: best, rejected: worst, judge: people")
HUB_TEXTS = f"{{source: hub, id: a/b, revision: {'a' * 40}, split: train}}"
METHODS = "".join(
    step_line(method, method, **{"from": start})
    for start, method in itertools.pairwise(["base", "cpt", "sft", "kto", "orpo", "simpo"])
)


@pytest.mark.parametrize(
    "changes",
    [
        # parts of one data set, and folders of one package
        [(FILE, f"""{{source: hub, id: a/b, revision: {"a" * 40}, split: train, format: messages}}
    - {{source: hub, id: a/b, revision: {"a" * 40}, split: test, format: messages}}""")],
        [('["es"]', "[es, it]"), (FILE, """{source: package, id: c, revision: "1", format: chatterbot, language: es}
    - {source: package, id: c, revision: "1", format: chatterbot, language: it}""")],
        # different files whose names look alike, and a data set with the name of a file
        [(FILE, f"""{FILE}
    - {FILE.replace("dialogues", "more-dialogues")}
    - {FILE.replace("dialogues", "more_dialogues")}
    - {{source: hub, id: dialogues.jsonl, revision: {"a" * 40}, split: train, format: messages}}""")],
        # the package lacks Galician, and is not asked for it
        [('["es"]', "[es, gl]"), (FILE, """{source: package, id: c, revision: "1", format: chatterbot, language: es}
    - {source: file, id: dialogues.jsonl, format: messages, language: gl}""")],
        # a step that continues an earlier one, and levels of a fetched model and of the first step
        [("merged:\n", "  more:\n    from: dpo\n" + PARAMS.partition("    from: base\n")[2].partition("\nmerged")[0]
          + "\nmerged:\n"), ("nf4: {model: dpo,", "nf4: {model: elsewhere,"),
         ("    dpo: {model: dpo,", "    more: {model: more,"), ("headline: dpo", "headline: more"),
         ("reference_model: base", "reference_model: dpo")],
        # a level is needed nowhere
        [("  nf4: {model: dpo, format: nf4}\n  int8: {model: dpo, format: int8}\n", ""),
         ("quantized:\n", "quantized: {}\n"),
         ("    nf4: {model: nf4, engine: transformers, system_prompt: false}\n", ""),
         ("    int8: {model: int8, engine: transformers, system_prompt: false}\n", "")],
        # win rates against two columns
        [("win_rate: {}\n", WIN_RATE + WIN_ENTRY.replace("base: {opponent: base", "dpo: {opponent: dpo"))],
        # figures do not depend on a column's name
        [("    dpo: {model: dpo,", "    tuned: {model: dpo,"),
         ("headline: dpo", "headline: tuned")],
        # a step of each method, and two parts of a data set of texts beside a file
        [(FILE, f"""{FILE}
  texts: [{TEXTS}, {HUB_TEXTS}, {HUB_TEXTS.replace('train', 'test')},
          {HUB_TEXTS.replace('split', 'subset: ro, share: 0.05, split')}]"""),
         ("adapter:\n", f"adapter:\n{METHODS}"), ("from: base", "from: simpo")],
        # what answers and judges is made from no pair
        [("adapter:\n", f"adapter:\n{step_line('sft', 'sft')}{step_line('again', 'sft', **{'from': 'sft'})}"),
         (PLAIN, PLAIN.replace("base", "again")),
         ("rubric: {kind: rubric, model: base,", "rubric: {kind: rubric, model: sft,")],
        [("{sigmoid: 1.0, sft: 1.0}", "{robust: 1.0, sft: 0.5}"), ("label_smoothing: 0.0", "label_smoothing: 0.1")],
        # named columns, graded on named criteria
        [("format: messages}", "format: columns, columns: {user: [instruction, input], assistant: output}}"),
         ("rubric: {kind: rubric", "rubric: {kind: grades, criteria: {correctness: 2, clarity: 0.5}, votes: 2")],
        # a server answers and judges
        [(ELSEWHERE, SERVER),
         ("second: {kind: rubric, model: base, engine: transformers",
          "second: {kind: rubric, model: elsewhere, engine: server"),
         REMOTE_OTHER],
        # people's scores and chrF++ instead of a judge
        [("format: messages}", f"format: ratings, {SCORES}}}"), BY_PEOPLE],
        [("format: messages}", "format: preferences}"), BY_PEOPLE],
        [("format: messages}", "format: oasst_messages, replies: ranked}"), BY_PEOPLE],
        [("judge: second", "judge: chrf")],
    ],
    ids=["splits", "folders", "names that look alike", "own languages", "two steps", "no level", "win rates",
         "column names", "all methods", "before pairs", "robust", "columns and criteria", "server", "ratings",
         "preferences", "ranks", "chrf"],
)  # fmt: skip
def test_parameters_without_a_mistake(tmp_path: Path, changes: list[tuple[str, str]]) -> None:
    params.load(changed(tmp_path, *changes))


AGAIN = "{name: again, chosen: reference, rejected: plain, judge: second, min_margin: 2}"  # the rule of PARAMS


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # unknown and missing
        ("  beta: 0.1", "  beta: 0.1\n    betta: 1",
         "62: adapter.dpo.betta: method dpo has no such parameter; remove it or fix its name"),
        ("    beta: 0.1\n", "", "54: adapter.dpo.beta: missing; add it"),
        ("    from: base\n", "    start: base\n",
         ("54: adapter.dpo.from: missing; add it\n"
          "55: adapter.dpo.start: method dpo has no such parameter; remove it or fix its name")),
        ("metrics:\n", "metric:\n", ("1: metrics: missing; add it\n"
         "85: metric: unknown parameter; remove it or fix its name")),
        (" min_margin: 1", " margin: 1", ("51: pairs.rules.0.min_margin: missing; add it\n"
         "51: pairs.rules.0.margin: unknown parameter; remove it or fix its name")),
        (PLAIN, PLAIN.replace("    engine: transformers\n", ""), "26: generated.plain.engine: missing; add it"),
        ("id: toy, dtype: float32", "id: toy", "5: models.base.dtype: missing; add it"),
        # type
        (" rank: 16", " rank: 16.5", "58: adapter.dpo.weights.rank: input should be a valid integer, got 16.5"),
        (" rank: 16", ' rank: "16"', "58: adapter.dpo.weights.rank: input should be a valid integer, got '16'"),
        ("  beta: 0.1", "  beta: high", "61: adapter.dpo.beta: input should be a valid number, got 'high'"),
        ("  beta: 0.1", "  beta:", "61: adapter.dpo.beta: input should be a valid number, got None"),
        (PLAIN, PLAIN.replace("false", "no"),
         "29: generated.plain.system_prompt: input should be a valid boolean, got 'no'"),
        ("seed: 1\n", "seed: 2026-01-01\n", "2: seed: input should be a valid integer, got datetime.date(2026, 1, 1)"),
        ("seed: 1\n", f"seed: {2**32}\n", "2: seed: input should be less than 4294967296, got 4294967296"),
        ('languages: ["es"]', "languages: es", "1: languages: input should be a valid list, got 'es'"),
        ('languages: ["es"]', "languages: [es, 7]", "1: languages.1: input should be a valid string, got 7"),
        ("merged:\n", "merged: 5\nrest:\n", ("76: merged: input should be a mapping of names to values, got 5\n"
         "77: rest: unknown parameter; remove it or fix its name")),
        # range
        ("  beta: 0.1", "  beta: -1", "61: adapter.dpo.beta: input should be greater than 0, got -1"),
        (" rank: 16", " rank: 0",
         "58: adapter.dpo.weights.rank: input should be greater than or equal to 1, got 0"),
        ("max_left_out: 0.05", "max_left_out: 2",
         "70: adapter.dpo.max_left_out: input should be less than or equal to 1, got 2"),
        ("learning_rate: 2.0e-4", "learning_rate: .inf",
         "63: adapter.dpo.learning_rate: input should be a finite number, got inf"),
        ("warmup: 0.1", "warmup: .nan", "65: adapter.dpo.warmup: input should be a finite number, got nan"),
        ("seed: 1\n", "seed: -1\n", "2: seed: input should be greater than or equal to 0, got -1"),
        ("seed: 2\n", f"seed: {2**32}\n", "72: adapter.dpo.seed: input should be less than 4294967296, got 4294967296"),
        ("scheduler: cosine", "scheduler: cosin",
         "64: adapter.dpo.scheduler: input should be 'linear', 'cosine' or 'constant', got 'cosin'"),
        ("method: dpo", "method: ppo",
         ("56: adapter.dpo.method: input should be one of 'cpt', 'sft', 'dpo', 'kto', 'orpo', 'simpo', got 'ppo'")),
        ("data: pairs", "data: pears", "57: adapter.dpo.data: input should be 'pairs', got 'pears'"),
        ("win_rate: {}", "win_rate:", "100: win_rate: is empty; add an entry, or write {}"),
        ("win_rate: {}\n", WIN_RATE.replace("}", ", runs: 5}"),
         "101: win_rate.base.runs: unknown parameter; remove it or fix its name"),
        ("win_rate: {}\n", WIN_RATE.replace("mass: 0.5", "mass: 5"),
         "101: win_rate.base.min_label_mass: input should be less than or equal to 1, got 5"),
        ("format: int8", "format: int9", "83: quantized.int8.format: input should be 'nf4' or 'int8', got 'int9'"),
        (PLAIN, PLAIN.replace("transformers", "vlm"),
         "28: generated.plain.engine: input should be 'vllm', 'transformers' or 'server', got 'vlm'"),
        ("dtype: bfloat16", "dtype: float16",
         "77: merged.dtype: input should be 'bfloat16' or 'float32', got 'float16'"),
        ("split: validation", "split: train", "86: metrics.split: input should be 'validation' or 'test', got 'train'"),
        ("perplexity, translation", "perplexity, translations",
         ("87: metrics.suites.4: input should be 'benchmark', 'preference', 'language', 'perplexity' or 'translation',"
          " got 'translations'")),
        ("[benchmark, preference, language, perplexity, translation]", "[]",
         "87: metrics.suites: is empty; add an entry"),
        ('languages: ["es"]', "languages: []",
         "1: languages: is empty; add an entry"),
        ('languages: ["es"]', "languages: [Spanish]",
         "1: languages.0: string should match pattern '^[a-z]{2,3}$', got 'Spanish'"),
        ("    prompted: {", "    Prompted: {",
         ("90: metrics.models.Prompted: input should be at most 30 small letters, digits and _, the first a letter,"
          " got 'Prompted'")),
        ("  plain:\n", "  Plain:\n",
         ("26: generated.Plain: input should be at most 30 small letters, digits and _, the first a letter, got"
          " 'Plain'")),
        ("  dpo:\n", "  dpo/1:\n",
         ("54: adapter.dpo/1: input should be at most 30 small letters, digits and _, the first a letter, got"
          " 'dpo/1'")),
        (f"  sources:\n    - {FILE}", "  sources: []",
         "12: raw.sources: is empty; add an entry"),
        ("max_cut_rejected: 0.5", "max_cut_rejected: 50",
         "50: pairs.max_cut_rejected: input should be less than or equal to 1, got 50"),
        ("test: 0.3", "test: 0", "23: threads.test: input should be greater than 0, got 0"),
        (PLAIN, PLAIN.replace("    train_share: 1.0\n", ""), "26: generated.plain.train_share: missing; add it"),
        (PLAIN, PLAIN.replace("1.0", "0"), "30: generated.plain.train_share: input should be greater than 0, got 0"),
        (PLAIN, PLAIN.replace("1.0", "1.5"),
         "30: generated.plain.train_share: input should be less than or equal to 1, got 1.5"),
        # a file has one name, below data/sources
        *((FILE, FILE.replace("dialogues.jsonl", name), f"13: raw.sources.0.id: {INSIDE}'{name}'")
          for name in ("../dialogues.jsonl", "/dialogues.jsonl", "a/../../dialogues.jsonl", "./dialogues.jsonl",
                       "a//dialogues.jsonl", ".")),
        ("id: dialogues.jsonl", 'id: ""',
         "13: raw.sources.0.id: input should be text that can be printed, got ''"),
        ("id: dialogues.jsonl", 'id: "a\\0b.jsonl"',
         "13: raw.sources.0.id: input should be text that can be printed, got 'a\\x00b.jsonl'"),
        # a branch or a tag moves
        (BASE, "{source: hub, id: a/b, revision: main, dtype: float32}", f"5: models.base.revision: {COMMIT}'main'"),
        (BASE, "{source: hub, id: a/b, revision: 0123456789abcdef0123456789abcdef0123456, dtype: float32}",
         f"5: models.base.revision: {COMMIT}'0123456789abcdef0123456789abcdef0123456'"),
        (FILE, "{source: hub, id: a/b, revision: v1.0, split: train, format: messages}",
         f"13: raw.sources.0.revision: {COMMIT}'v1.0'"),
        # one of several kinds
        (BASE, "{source: web, id: toy}",
         "5: models.base.source: input should be one of 'package', 'hub', 'folder', 'version', 'server', got 'web'"),
        (BASE, "{id: toy}", "5: models.base.source: missing; add it"),
        (BASE, "{source: hub, id: toy, dtype: float32}", "5: models.base.revision: missing; add it"),
        (BASE, "toy", "5: models.base: input should be a mapping of names to values, got 'toy'"),
        ("    source: folder\n", "    source: hob\n",
         f"7: models.elsewhere.source: input should be one of {SOURCES}, got 'hob'"),
        ("    id: /models/elsewhere", "    id: /models/elsewhere\n    revison: main",
         "9: models.elsewhere.revison: unknown parameter; remove it or fix its name"),
        ("rubric: {kind: rubric", "rubric: {kind: rubrik",
         ("46: scored.rubric.kind: input should be one of 'rubric', 'additive', 'grades', 'pairwise', 'pairrm',"
          " 'reward', got 'rubrik'")),
        ("min_label_mass: 0.5", "min_label_mass: 1.5",
         "46: scored.rubric.min_label_mass: input should be less than or equal to 1, got 1.5"),
        ("format: messages", "format: message",
         ("13: raw.sources.0.format: input should be 'oasst_trees', 'oasst_messages', 'messages', 'columns', 'prompts',"
          " 'preferences', 'ratings' or 'lima', got 'message'")),
        ("format: messages}", "format: ratings, ratings: {prompt: q, answer: a}}",
         "13: raw.sources.0.ratings.scores: missing; add it"),
        ("format: messages}", "format: ratings, ratings: {prompt: q, answer: a, scores: {}}}",
         "13: raw.sources.0.ratings.scores: is empty; add an entry"),
        ("format: messages}", "format: ratings, ratings: {prompt: q, answer: a, scores: {good: 0}}}",
         "13: raw.sources.0.ratings.scores.good: input should not be 0: leave the column out, got 0"),
        ("format: messages}", "format: columns, columns: {user: [q]}}",
         "13: raw.sources.0.columns.assistant: missing; add it"),
        ("format: messages}", "format: columns, columns: {user: q, assistant: a}}",
         "13: raw.sources.0.columns.user: input should be a valid list, got 'q'"),
        ("rubric: {kind: rubric", "rubric: {kind: grades",
         "46: scored.rubric.criteria: missing; add it"),
        ("rubric: {kind: rubric", "rubric: {kind: grades, criteria: {}",
         "46: scored.rubric.criteria: is empty; add an entry"),
        ("rubric: {kind: rubric", "rubric: {kind: grades, criteria: {clarity: 0}",
         "46: scored.rubric.criteria.clarity: input should be greater than 0, got 0"),
        (ELSEWHERE, SERVER.replace("http://", "http://me:secret@"), f"8: models.elsewhere.url: {URL}'http://me:secret@h/v1'"),
        (ELSEWHERE, f"{SERVER}    key: sk-secret\n",
         "11: models.elsewhere.key: should be the name of an environment variable, such as VENDOR_KEY"),
        (ELSEWHERE, SERVER.replace("http://", "ftp://"), f"8: models.elsewhere.url: {URL}'ftp://h/v1'"),
        (ELSEWHERE, SERVER.replace("revision: '1'\n", "revision: '1'\n    dtype: float32\n"),
         "11: models.elsewhere.dtype: unknown parameter; remove it or fix its name"),
        ("max_cut_rejected: 0.5", "max_cut_rejected: 0.5\n  min_words: 0",
         "51: pairs.min_words: input should be greater than or equal to 1, got 0"),
        ("format: messages}", "format: oasst_trees, replies: worst}",
         "13: raw.sources.0.replies: input should be 'best', 'ranked' or 'all', got 'worst'"),
        ("format: messages}", "format: messages, language: pt-BR}",
         "13: raw.sources.0.language: string should match pattern '^[a-z]{2,3}$', got 'pt-BR'"),
        # options of a method, and of what is trained
        ("targets: all-linear", "targets: [q_proj, 7]",
         f"58: adapter.dpo.weights.targets: {LAYERS}['q_proj', 7]"),
        ("targets: all-linear", "targets: []", f"58: adapter.dpo.weights.targets: {LAYERS}[]"),
        ("targets: all-linear", "targets: all", f"58: adapter.dpo.weights.targets: {LAYERS}'all'"),
        ("{kind: lora,", "{", "58: adapter.dpo.weights.kind: missing; add it"),
        ("kind: lora", "kind: dora",
         "58: adapter.dpo.weights.kind: input should be one of 'lora', 'qlora', 'full', got 'dora'"),
        ("{kind: lora, rank: 16, alpha: 32, dropout: 0.0, targets: all-linear, rslora: false, dora: false}",
         "{kind: full, rank: 16}",
         "58: adapter.dpo.weights.rank: kind full has no such parameter; remove it or fix its name"),
        ("{sigmoid: 1.0, sft: 1.0}", "{sigmod: 1.0}",
         ("59: adapter.dpo.losses.sigmod: input should be 'sigmoid', 'ipo', 'hinge', 'robust', 'apo_zero',"
          " 'sigmoid_norm' or 'sft', got 'sigmod'")),
        ("{sigmoid: 1.0, sft: 1.0}", "{sigmoid: 0}",
         "59: adapter.dpo.losses.sigmoid: input should be greater than 0, got 0"),
        ("{sigmoid: 1.0, sft: 1.0}", "{}",
         "59: adapter.dpo.losses: is empty; add an entry"),
        ("label_smoothing: 0.0", "label_smoothing: 0.5",
         "60: adapter.dpo.label_smoothing: input should be less than 0.5, got 0.5"),
        ("{prompts: 2,", "{", "73: adapter.dpo.health.prompts: missing; add it"),
        ("max_chosen_drop: 1.0", "max_chosen_drop: 0",
         "73: adapter.dpo.health.max_chosen_drop: input should be greater than 0, got 0"),
        ("method: dpo", "method: simpo",
         ("54: adapter.dpo.gamma: missing; add it\n"
          "59: adapter.dpo.losses: method simpo has no such parameter; remove it or fix its name\n"
          "60: adapter.dpo.label_smoothing: method simpo has no such parameter; remove it or fix its name")),
        ("adapter:\n", f"adapter:\n{step_line('more', 'cpt', beta=1, health={})}",
         ("54: adapter.more.beta: method cpt has no such parameter; remove it or fix its name\n"
          "54: adapter.more.health: method cpt has no such parameter; remove it or fix its name")),
        ("adapter:\n", f"adapter:\n{step_line('more', 'sft', data='pairs')}",
         "54: adapter.more.data: input should be 'threads', got 'pairs'"),
        ("adapter:\n", f"adapter:\n{step_line('more', 'orpo', data='threads')}",
         "54: adapter.more.data: input should be 'pairs', got 'threads'"),
        # the divergence is estimated from the answers of a batch to other prompts
        ("adapter:\n", f"adapter:\n{step_line('more', 'kto', batch=3)}",
         "54: adapter.more.batch: input should be greater than or equal to 4, got 3"),
        # texts
        (FILE, f"{FILE}\n  texts: [{{source: package, id: a}}]",
         "14: raw.texts.0.source: input should be one of 'hub', 'file', got 'package'"),
        (FILE, f"{FILE}\n  texts: [{{source: file, id: ../a.jsonl}}]",
         f"14: raw.texts.0.id: {INSIDE}'../a.jsonl'"),
        (FILE, f"{FILE}\n  texts: [{{source: hub, id: a/b, revision: main, split: train}}]",
         f"14: raw.texts.0.revision: {COMMIT}'main'"),
        # not YAML
        ("adapter:\n", "adapter: [\n", "55: not YAML (expected ',' or ']', but got ':'); fix it"),
        ("    beta: 0.1", "    beta: 0.1\n    beta: 0.2",
         '62: not YAML (found duplicate key "beta" with value "0.2" (original value: "0.1")); fix it'),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = changed(tmp_path, (old, new))
    assert message(path) == at(path, expected)


CORPUS = '{source: package, id: chatterbot-corpus, revision: "1.3.3", format: chatterbot}'
SPLIT = f"{{source: hub, id: a/b, revision: {'a' * 40}, split: train, format: messages}}"
OTHER = "take another source"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # languages
        ([('["es"]', "[es, xx]")], f"1: languages.1: unknown language 'xx'; take one of {KNOWN}"),
        ([('["es"]', "[es, it, es]")], "1: languages.2: 'es' is a duplicate; delete one"),
        ([('["es"]', "\n  - es\n  - it\n  - it")], "4: languages.2: 'it' is a duplicate; delete one"),
        # sources
        ([(FILE, f"{FILE}\n    - {FILE.replace('messages', 'oasst_trees, replies: all')}")],
         "14: raw.sources.1: duplicate of an earlier source; delete one"),
        ([(FILE, f"{FILE}\n    - {FILE.replace('}', ', language: es}')}")],
         "14: raw.sources.1: duplicate of an earlier source; delete one"),
        ([(FILE, f"{SPLIT}\n    - {FILE}\n    - {SPLIT.replace('a' * 40, 'b' * 40)}")],
         "15: raw.sources.2: duplicate of an earlier source; delete one"),
        ([(FILE, f"{CORPUS}\n    - {CORPUS}")], "14: raw.sources.1: duplicate of an earlier source; delete one"),
        ([("format: messages}", "format: messages, replies: best}")],
         "13: raw.sources.0.replies: format messages has no ranked replies; remove it"),
        ([("format: messages}", "format: messages, language: it}")],
         "13: raw.sources.0.language: no 'it'; take one of es"),
        ([('["es"]', "[es, pt]"), ("format: messages}", "format: messages, language: it}")],
         "13: raw.sources.0.language: no 'it'; take one of es, pt"),
        ([('["es"]', "[gl]"), (FILE, CORPUS)],
         f"13: raw.sources.0: chatterbot-corpus has no Galician; set its language to one that it has, or {OTHER}"),
        ([('["es"]', "[gl, es, eu]"), (FILE, f"{FILE}\n    - {CORPUS}")],
         (f"14: raw.sources.1: chatterbot-corpus has no Basque, Galician; set its language to one that it has, or"
          f" {OTHER}")),
        ([('["es"]', "[gl, es]"), (FILE, CORPUS.replace("}", ", language: gl}"))],
         f"13: raw.sources.0: chatterbot-corpus has no Galician; set its language to one that it has, or {OTHER}"),
        ([('["es"]', "[xx]"), (FILE, CORPUS)], f"1: languages.0: unknown language 'xx'; take one of {KNOWN}"),
        ([(FILE, CORPUS.replace("}", ", language: gl}"))],
         ("13: raw.sources.0.language: no 'gl'; take one of es\n"
          f"13: raw.sources.0: chatterbot-corpus has no Galician; set its language to one that it has, or {OTHER}")),
        # one space of names
        ([("  dpo:\n", "  base:\n"), ("nf4: {model: dpo,", "nf4: {model: base,"),
          ("int8: {model: dpo,", "int8: {model: base,"), ("dpo: {model: dpo,", "dpo: {model: elsewhere,")],
         "54: adapter.base: models.base has this name already; take another"),
        ([("  nf4: {model: dpo,", "  dpo: {model: dpo,"), ("nf4: {model: nf4,", "nf4: {model: elsewhere,")],
         "82: quantized.dpo: adapter.dpo has this name already; take another"),
        ([("  nf4: {model: dpo,", "  base: {model: dpo,"), ("nf4: {model: nf4,", "nf4: {model: elsewhere,")],
         "82: quantized.base: models.base has this name already; take another"),
        ([("  elsewhere:\n", "  adapter:\n"), ("    model: elsewhere\n", "    model: adapter\n")],
         "6: models.adapter: the name is reserved for models/adapter; take another"),
        ([("  dpo:\n", "  adapter:\n"), ("nf4: {model: dpo,", "nf4: {model: adapter,"),
          ("int8: {model: dpo,", "int8: {model: adapter,"), ("dpo: {model: dpo,", "dpo: {model: adapter,")],
         "54: adapter.adapter: the name is reserved for models/adapter; take another"),
        ([("  nf4: {model: dpo,", "  adapter: {model: dpo,"), ("nf4: {model: nf4,", "nf4: {model: adapter,")],
         "82: quantized.adapter: the name is reserved for models/adapter; take another"),
        # steps
        ([("from: base", "from: bass")], "55: adapter.dpo.from: no 'bass'; take one of base, elsewhere"),
        ([("baselines: [base, prompted]", "baselines: [base, base]")],
         "95: metrics.baselines.1: 'base' is a duplicate; delete one"),
        ([("reference_model: base", "reference_model: dpo")],
         "96: metrics.reference_model: is the headline's model, whose rewards would all be 0; take its start"),
        ([("judge: second, min_margin: 1}]",
           f"judge: second, min_margin: 1}},{chr(10)}    {AGAIN}]")],
         "52: pairs.rules.1: duplicate of an earlier rule; delete one"),
        ([("from: base", "from: dpo")], "55: adapter.dpo.from: no 'dpo'; take one of base, elsewhere"),
        ([("from: base", "from: nf4")], "55: adapter.dpo.from: no 'nf4'; take one of base, elsewhere"),
        ([("    from: base\n", "    from: later\n"),
          ("merged:\n", "  later:\n    from: base\n" + PARAMS.partition("    from: base\n")[2].partition("\nmerged")[0]
           + "\nmerged:\n")],
         "55: adapter.dpo.from: 'later' comes later; move it above dpo"),
        ([("adapter:\n", f"adapter:\n{step_line('more', 'cpt')}"), ("from: base", "from: more")],
         "54: adapter.more.data: raw.texts has no source; add one, or delete the step"),
        ([(FILE, f"{FILE}\n  texts: [{TEXTS}]")],
         "14: raw.texts: no step of method cpt trains on texts; add one, or delete the sources"),
        ([(FILE, f"{FILE}\n  texts:\n    - {TEXTS}\n    - {TEXTS.replace('}', ', language: it}')}"),
          ("adapter:\n", f"adapter:\n{step_line('more', 'cpt')}"), ("from: base", "from: more")],
         ("16: raw.texts.1.language: no 'it'; take one of es\n"
          "16: raw.texts.1: duplicate of an earlier source; delete one")),
        ([(FILE, f"{FILE}\n  texts:\n    - {HUB_TEXTS}\n    - {TEXTS}\n    - {HUB_TEXTS.replace('aaa', 'bbb')}"),
          ("adapter:\n", f"adapter:\n{step_line('more', 'cpt')}"), ("from: base", "from: more")],
         "17: raw.texts.2: duplicate of an earlier source; delete one"),
        ([("label_smoothing: 0.0", "label_smoothing: 0.1")],
         "60: adapter.dpo.label_smoothing: only the loss robust has it; make it 0, or add that loss"),
        ([("{sigmoid: 1.0, sft: 1.0}", "{sft: 1.0}")],
         "59: adapter.dpo.losses: sft alone is no preference loss; add one, or take method sft"),
        # levels
        ([("nf4: {model: dpo,", "nf4: {model: dop,")],
         "82: quantized.nf4.model: no 'dop'; take one of base, elsewhere, dpo"),
        ([("int8: {model: dpo,", "int8: {model: nf4,")],
         "83: quantized.int8.model: no 'nf4'; take one of base, elsewhere, dpo"),
        ([("    int8: {model: int8, engine: transformers, system_prompt: false}\n", "")],
         "83: quantized.int8: no entry of metrics.models measures int8; add one, or delete the level"),
        # win rates
        ([("win_rate: {}\n", WIN_RATE.replace("opponent: base", "opponent: bass"))],
         "101: win_rate.base.opponent: no 'bass'; take one of base, prompted, dpo, nf4, int8, plain, other"),
        ([("win_rate: {}\n", WIN_RATE.replace("model: base", "model: dpo"))],
         "101: win_rate.base.model: no 'dpo'; take one of base, elsewhere"),
        ([("win_rate: {}\n", WIN_RATE), ("preference, language, perplexity", "preference, perplexity")],
         ("101: win_rate.base: its answers are those of suite language; add that to metrics.suites, or delete the"
          " entry")),
        ([("win_rate: {}\n", WIN_RATE + WIN_ENTRY.replace("  base:", "  again:"))],
         "102: win_rate.again: duplicate of an earlier entry; delete one"),
        # generators and judges
        ([(PLAIN, PLAIN.replace("base", "bass"))], "27: generated.plain.model: no 'bass'; take one of base, elsewhere"),
        ([(PLAIN, PLAIN.replace("base", "dpo"))],
         "27: generated.plain.model: 'dpo' is made from the pairs that this makes; take one of base, elsewhere"),
        ([("    temperature: 0.5", "    temperature: 0")],
         "40: generated.other.n: at temperature 0 all 2 samples are equal; make it 1, or raise temperature"),
        *(([("  other:\n", f"  {name}:\n")],
           f"35: generated.{name}: the name is reserved for rules and reports; take another")
          for name in ("best", "worst", "reference", "people", "chrf", "assumption", "experts")),
        ([("rubric: {kind: rubric, model: base,", "rubric: {kind: rubric, model: nf4,")],
         "46: scored.rubric.model: 'nf4' is made from the pairs that this makes; take one of base, elsewhere"),
        ([("  second: {", "  assumption: {")],
         ("47: scored.assumption: the name is reserved for rules and reports; take another\n"
          "51: pairs.rules.0.judge: no 'second'; take one of assumption, calibrated, chrf, people, rubric")),
        *(([("  rubric: {", f"  {name}: {{")],
           f"46: scored.{name}: the name is reserved for rules and reports; take another")
          for name in ("people", "chrf", "best", "reference")),
        # a step before pairs is known to both; one from a step on pairs is after them, whatever it trains on
        ([("adapter:\n", f"adapter:\n{step_line('sft', 'sft')}"), ("from: base", "from: sft"),
          (PLAIN, PLAIN.replace("base", "bass")),
          ("second: {kind: rubric, model: base,", "second: {kind: rubric, model: dpo,")],
         ("27: generated.plain.model: no 'bass'; take one of base, elsewhere, sft\n"
          "47: scored.second.model: 'dpo' is made from the pairs that this makes; take one of base, elsewhere, sft")),
        ([("merged:\n", f"{step_line('after', 'sft', **{'from': 'dpo'})}merged:\n"),
          ("    dpo: {model: dpo,", "    after: {model: after,"), ("headline: dpo", "headline: after"),
          (PLAIN, PLAIN.replace("base", "after")),
          ("rubric: {kind: rubric, model: base,", "rubric: {kind: rubric, model: after,")],
         ("27: generated.plain.model: 'after' is made from the pairs that this makes; take one of base, elsewhere\n"
          "46: scored.rubric.model: 'after' is made from the pairs that this makes; take one of base, elsewhere")),
        # judges without an engine
        ([("rubric: {kind: rubric, model: base, engine: transformers, min_label_mass: 0.5}",
           "rubric: {kind: pairrm, model: elsewhere}")],
         "46: scored.rubric.kind: PairRM has learned from English only, and languages has es; take another kind"),
        ([("rubric: {kind: rubric, model: base, engine: transformers, min_label_mass: 0.5}",
           "rubric: {kind: reward, model: sft}"),
          ("adapter:\n", f"adapter:\n{step_line('sft', 'sft')}")],
         "46: scored.rubric.model: 'sft' is trained here and generates; take one of base, elsewhere"),
        ([("merged:\n", f"{ROUNDS}merged:\n"), ("judge: own", "judge: second"),
          ("second: {kind: rubric, model: base, engine: transformers, min_label_mass: 0.0}",
           "second: {kind: reward, model: base}")],
         "76: rounds.judge: in rounds the model judges itself; take a judge whose model generates"),
        # rounds
        ([("merged:\n", f"{ROUNDS}merged:\n"), ("judge: own", "judge: mine")],
         "76: rounds.judge: no 'mine'; take one of rubric, second"),
        ([("merged:\n", f"{ROUNDS}merged:\n"), ("judge: own", "judge: second"),
          ("second: {kind: rubric, model: base,", "second: {kind: rubric, model: elsewhere,")],
         "76: rounds.judge: in rounds the model judges itself; take a judge with model base"),
        ([("merged:\n", f"{ROUNDS}merged:\n"), ("judge: own", "judge: second"),
          (PLAIN, PLAIN.replace("base", "elsewhere"))],
         ("76: rounds.judge: no rule of pairs ranks answers by second alone, so nothing is learned from it; add one\n"
          "76: rounds: no generator has model base, whose answers are judged; add one")),
        ([("merged:\n", f"{ROUNDS}merged:\n"), ("judge: own", "judge: second"), ("headline: dpo", "headline: int8")],
         "95: metrics.headline: 'int8' is no step, and a round starts from what the round before has trained"),
        # rules
        ([("chosen: reference", "chosen: refrence")],
         ("51: pairs.rules.0.chosen: no 'refrence'; take one of best, other, plain, rated_best, rated_worst, reference,"
          " worst")),
        ([("rejected: plain", "rejected: plan")],
         ("51: pairs.rules.0.rejected: no 'plan'; take one of best, other, plain, rated_best, rated_worst, reference,"
          " worst")),
        ([("judge: second", "judge: bleu")],
         "51: pairs.rules.0.judge: no 'bleu'; take one of assumption, calibrated, chrf, people, rubric, second"),
        # by people's scores and by chrF++
        ([BY_PEOPLE],
         ("51: pairs.rules.0.judge: no source brings people's scores; add one of format preferences or ratings, or take"
          " replies: ranked")),
        ([BY_PEOPLE, ("format: messages}", "format: oasst_trees, replies: best}")],
         ("51: pairs.rules.0.judge: no source brings people's scores; add one of format preferences or ratings, or take"
          " replies: ranked")),
        ([("format: messages}", "format: preferences}"), ("judge: second", "judge: people")],
         ("51: pairs.rules.0.chosen: people's scores are of the answers that a source brings, not of reference; take"
          " best or worst\n"
          "51: pairs.rules.0.rejected: people's scores are of the answers that a source brings, not of plain; take best"
          " or worst")),
        ([("rejected: plain, judge: second", "rejected: reference, judge: chrf")],
         "51: pairs.rules.0.rejected: by chrf nothing is better than the expert's answer; take another side or judge"),
        ([("judge: second, min_margin: 1", "judge: second, min_margin: null")],
         ("51: pairs.rules.0.min_margin: can be null where a judge of section scored finds exactly one side, best or"
          " worst; make it 0")),
        ([("rejected: plain, judge: second, min_margin: 1", "rejected: rated_worst, judge: second, min_margin: 1")],
         ("51: pairs.rules.0.judge: judges the answers of generators, and not those that a source rated; take"
          " assumption\n"
          "51: pairs.rules.0.rejected: no source brings people's scores; add one of format preferences or ratings, or"
          " take replies: ranked")),
        ([("judge: second, min_margin: 1", "judge: calibrated, min_margin: 1")],
         "51: pairs.rules.0.min_margin: each judge has its own unit; make it 0, or name a judge"),
        ([("chosen: reference, rejected: plain", "chosen: worst, rejected: best")],
         "51: pairs.rules.0: takes the worst answer for the better one, so there is no pair; exchange the two sides"),
        ([("min_margin: 1}]",
           ("min_margin: 1},\n"
            "    {name: reference_over_plain, chosen: best, rejected: worst, judge: second, min_margin: 1}]"))],
         "52: pairs.rules.1.name: 'reference_over_plain' names another rule; take another name"),
        # by assumption nothing is ranked
        ([("judge: second", "judge: assumption")],
         "51: pairs.rules.0.min_margin: by assumption there are no scores; make it 0, or take a judge that ranks"),
        ([("chosen: reference, rejected: plain, judge: second, min_margin: 1",
           "chosen: best, rejected: plain, judge: assumption, min_margin: 0")],
         ("51: pairs.rules.0.chosen: by assumption nothing is best; take reference or a generator, or a judge that"
          " ranks")),
        ([("rejected: plain, judge: second, min_margin: 1", "rejected: worst, judge: assumption, min_margin: 0")],
         ("51: pairs.rules.0.rejected: by assumption nothing is worst; take reference or a generator, or a judge that"
          " ranks")),
        ([("rejected: plain, judge: second, min_margin: 1", "rejected: reference, judge: assumption, min_margin: 0")],
         "51: pairs.rules.0.rejected: by assumption 'reference' is not better than itself; take another"),
        # shares and columns
        ([("test: 0.3", "test: 0.8")], "21: threads: validation and test leave nothing to train on; make them smaller"),
        ([("validation: 0.2", "validation: 0")],
         "86: metrics.split: threads.validation is 0, so there is nothing to measure; raise it"),
        ([("perplexity, translation]", "perplexity, language]")],
         "87: metrics.suites.4: 'language' is a duplicate; delete one"),
        ([("reference_model: base", "reference_model: nf4")],
         "96: metrics.reference_model: no 'nf4'; take one of base, elsewhere, dpo"),
        ([("reference_model: base", "reference_model: prompted")],
         "96: metrics.reference_model: no 'prompted'; take one of base, elsewhere, dpo"),
        ([("dpo: {model: dpo,", "dpo: {model: merged,")],
         "91: metrics.models.dpo.model: no 'merged'; take one of base, elsewhere, dpo, nf4, int8"),
        ([("nf4: {model: nf4, engine: transformers", "nf4: {model: nf4, engine: vllm")],
         ("92: metrics.models.nf4.engine: figures of two engines are not compared; measure all with transformers, or"
          " all with vllm")),
        ([("    base: {model: base, engine: transformers", "    base: {model: base, engine: vllm"),
          ("prompted: {model: base, engine: transformers", "prompted: {model: base, engine: vllm"),
          ("int8: {model: int8, engine: transformers", "int8: {model: int8, engine: vllm")],
         ("91: metrics.models.dpo.engine: figures of two engines are not compared; measure all with vllm, or all with"
          " transformers\n"
          "92: metrics.models.nf4.engine: figures of two engines are not compared; measure all with vllm, or all with"
          " transformers")),
        ([("{model: int8,", "{model: nf4,")],
         ("83: quantized.int8: no entry of metrics.models measures int8; add one, or delete the level\n"
          "93: metrics.models.int8.model: the column has the name of a model and measures another; take 'int8', or"
          " rename the column\n"
          "93: metrics.models.int8: duplicate of an earlier column; delete one")),
        ([("nf4: {model: nf4,", "nf4: {model: int8,"), ("int8: {model: int8,", "int8: {model: nf4,")],
         ("92: metrics.models.nf4.model: the column has the name of a model and measures another; take 'nf4', or"
          " rename the column\n"
          "93: metrics.models.int8.model: the column has the name of a model and measures another; take 'int8', or"
          " rename the column")),
        ([("baselines: [base, prompted]", "baselines: [base, merged]")],
         "95: metrics.baselines.1: no 'merged'; take one of base, prompted, dpo, nf4, int8"),
        ([("headline: dpo", "headline: prompted")],
         "94: metrics.headline: is a baseline; take a column that is compared with them"),
        ([("headline: dpo", "headline: merged")],
         "94: metrics.headline: no 'merged'; take one of base, prompted, dpo, nf4, int8"),
        *(([("    nf4: {model: nf4,", f"    {name}: {{model: nf4,")],
           f"92: metrics.models.{name}: the name is reserved for a column of the report; take another")
          for name in ("experts", "trivial")),
        # steps that nothing needs, models in a folder of outputs, rankings of replies, parts of one package
        ([("merged:\n", "  more:\n    from: dpo\n" + PARAMS.partition("    from: base\n")[2].partition("\nmerged")[0]
           + "\nmerged:\n")],
         "76: adapter.more: nothing uses or measures more; add it to metrics.models, or delete the step"),
        ([("id: toy,", "id: models/dpo,")],
         "5: models.base.id: is in models/, which stages write and DVC removes; take a folder elsewhere"),
        ([("format: messages}", "format: oasst_trees}")],
         "13: raw.sources.0.replies: missing; add best, ranked or all"),
        ([("format: messages}", "format: ratings}")],
         "13: raw.sources.0.ratings: missing; add {prompt: ..., answer: ..., scores: {...}}"),
        ([("format: messages}", f"format: preferences, {SCORES}}}")],
         "13: raw.sources.0.ratings: format preferences has no ratings; remove it"),
        ([("format: messages}", f"format: ratings, {SCORES.replace('good', 'a')}}}")],
         "13: raw.sources.0.ratings: a column is there twice; name each once"),
        ([("format: messages}", "format: columns}")],
         "13: raw.sources.0.columns: missing; add {user: [...], assistant: ...}"),
        ([("format: messages}", "format: columns, replies: all, columns: {user: [q], assistant: a}}")],
         "13: raw.sources.0.replies: format columns has no ranked replies; remove it"),
        ([("format: messages}", "format: messages, columns: {user: [q], assistant: a}}")],
         "13: raw.sources.0.columns: format messages names no columns; remove it"),
        ([("rubric: {kind: rubric", "rubric: {kind: grades, criteria: {relevance: 1, clarity: 1}, votes: 3")],
         "46: scored.rubric.votes: each vote begins with another criterion, and there are 2; make it that at most"),
        ([("format: messages}", "format: messages, sides: {prompt: q, chosen: a, rejected: b}}")],
         "13: raw.sources.0.sides: format messages names no sides; remove it"),
        ([("format: messages}", "format: preferences, sides: {prompt: q, chosen: a, rejected: b, score_chosen: c}}")],
         "13: raw.sources.0.sides: a score of one side alone; name both, or neither"),
        # rules whose pairs a step learns
        ([("  beta: 0.1", "  beta: 0.1\n    rules: [reference_over_plian]")],
         "62: adapter.dpo.rules.0: no 'reference_over_plian'; take one of reference_over_plain"),
        ([("  beta: 0.1", "  beta: 0.1\n    rules: [reference_over_plain, reference_over_plain]")],
         "62: adapter.dpo.rules.1: 'reference_over_plain' is a duplicate; delete one"),
        # models behind a server
        ([(ELSEWHERE, SERVER)],
         "38: generated.other.engine: 'elsewhere' is behind a server; write server"),
        ([(PLAIN, PLAIN.replace("transformers", "server"))],
         "28: generated.plain.engine: 'base' is not behind a server; take vllm or transformers"),
        ([(ELSEWHERE, SERVER), REMOTE_OTHER, ("from: base", "from: elsewhere")],
         f"56: adapter.dpo.from: {REMOTE} train; take another"),
        ([(ELSEWHERE, SERVER), REMOTE_OTHER, ("int8: {model: dpo, format", "int8: {model: elsewhere, format")],
         f"84: quantized.int8.model: {REMOTE} quantise; take another"),
        ([(ELSEWHERE, SERVER), REMOTE_OTHER, ("prompted: {model: base", "prompted: {model: elsewhere")],
         f"91: metrics.models.prompted.model: {REMOTE} measure; take another"),
        ([(ELSEWHERE, SERVER), REMOTE_OTHER, ("reference_model: base", "reference_model: elsewhere")],
         f"97: metrics.reference_model: {REMOTE} compute with; take another"),
        ([('["es"]', "[es, it]"), (FILE, f"{CORPUS}\n    - {CORPUS.replace('}', ', language: es}')}")],
         "14: raw.sources.1: duplicate of an earlier source; delete one"),
        ([(FILE, f"{CORPUS}\n    - {CORPUS.replace('chatterbot-corpus', 'Chatterbot_Corpus')}")],
         "14: raw.sources.1: duplicate of an earlier source; delete one"),
    ],
)  # fmt: skip
def test_a_broken_reference(tmp_path: Path, changes: list[tuple[str, str]], expected: str) -> None:
    path = changed(tmp_path, *changes)
    assert message(path) == at(path, expected)


def test_all_broken_references_are_reported_at_once(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        ('["es"]', "[es, es]"),
        ("from: base", "from: bass"),
        ("judge: second", "judge: bleu"),
        ("reference_model: base", "reference_model: bass"),
        ("baselines: [base, prompted]", "baselines: [bass]"),
    )
    expected = [
        "1: languages.1: 'es' is a duplicate; delete one",
        "55: adapter.dpo.from: no 'bass'; take one of base, elsewhere",
        "51: pairs.rules.0.judge: no 'bleu'; take one of assumption, calibrated, chrf, people, rubric, second",
        "96: metrics.reference_model: no 'bass'; take one of base, elsewhere, dpo",
        "95: metrics.baselines.0: no 'bass'; take one of base, prompted, dpo, nf4, int8",
    ]
    assert message(path) == at(path, "\n".join(expected))


def test_an_entry_that_is_not_there(values: params.Params) -> None:
    assert params.get_entry("generated", values.generated, "plain") == values.generated["plain"]
    with pytest.raises(BadInput) as caught:
        params.get_entry("generated", values.generated, "plane")
    assert caught.value.message == "params.yaml: generated: no 'plane'; take one of other, plain"


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        ('languages: ["es"]', "languages: 7"),
        ("alpha: 32, dropout: 0.0", "dropout: 2"),
        ("  beta: 0.1", "  bata: 0.1"),
        ("  second: {kind: rubric", "  second: {kind: referee"),
    )
    expected = [
        "1: languages: input should be a valid list, got 7",
        (
            "47: scored.second.kind: input should be one of 'rubric', 'additive', 'grades', 'pairwise', 'pairrm',"
            " 'reward', got 'referee'"
        ),
        "58: adapter.dpo.weights.alpha: missing; add it",
        "58: adapter.dpo.weights.dropout: input should be less than or equal to 1, got 2",
        "54: adapter.dpo.beta: missing; add it",
        "61: adapter.dpo.bata: method dpo has no such parameter; remove it or fix its name",
    ]
    assert message(path) == at(path, "\n".join(expected))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "1: whole file: input should be a mapping of names to values, got None"),
        (b"- 1\n- 2\n", "1: whole file: input should be a mapping of names to values, got [1, 2]"),
        (b"languages: \xff\n", " not UTF-8 (invalid start byte at byte 12); save it as UTF-8"),
        (
            b"a: !!python/object:os.system x\n",
            (
                "1: not YAML (could not determine a constructor for the tag 'tag:yaml.org,2002:python/object:os.system'"
                "); fix it"
            ),
        ),
    ],
)
def test_a_file_that_has_no_parameters(tmp_path: Path, content: bytes, expected: str) -> None:
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
def test_a_value_that_yaml_cannot_read(workplace: Path, value: str) -> None:
    path = workplace / "params.yaml"
    path.write_text(PARAMS.replace("seed: 1\n", f"seed: {value}\n"), encoding="utf-8")
    with pytest.raises(BadInput, match=r"params\.yaml.*; fix it$"):
        params.load(path)
