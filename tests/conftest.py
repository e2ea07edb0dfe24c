"""What several fast tests start from: a params.yaml of their own, and a tokenizer of a few hundred tokens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from mothertongue.chat import Chat
from mothertongue.params import Params, Step, load
from mothertongue.records import Lineage, Message, Pair, Split, Thread

PARAMS = """\
languages: ["es"]
seed: 1

models:
  base: {source: folder, id: toy, dtype: float32}
  elsewhere:
    source: folder
    id: /models/elsewhere
    dtype: float32

raw:
  sources:
    - {source: file, id: dialogues.jsonl, format: messages}

filtered:
  min_language: 0.2
  min_words: 2
  max_words: 30
  min_letters: 0.5

threads:
  validation: 0.2
  test: 0.3

generated:
  plain:
    model: base
    engine: transformers
    system_prompt: false
    train_share: 1.0
    n: 1
    temperature: 0.8
    top_p: 0.95
    max_tokens: 48
  other:
    model: elsewhere
    engine: transformers
    system_prompt: true
    train_share: 1.0
    n: 2
    temperature: 0.5
    top_p: 1.0
    max_tokens: 48

scored:
  rubric: {kind: rubric, model: base, engine: transformers, min_label_mass: 0.5}
  second: {kind: rubric, model: base, engine: transformers, min_label_mass: 0.0}
calibrated: {min_agreement: 0.5}
pairs:
  max_cut_rejected: 0.5
  rules: [{name: reference_over_plain, chosen: reference, rejected: plain, judge: second, min_margin: 1}]

adapter:
  dpo:
    from: base
    method: dpo
    data: pairs
    weights: {kind: lora, rank: 16, alpha: 32, dropout: 0.0, targets: all-linear, rslora: false, dora: false}
    losses: {sigmoid: 1.0, sft: 1.0}
    label_smoothing: 0.0
    beta: 0.1
    checkpoint: 10
    learning_rate: 2.0e-4
    scheduler: cosine
    warmup: 0.1
    epochs: 1
    batch: 8
    accumulation: 1
    max_length: 512
    max_left_out: 0.05
    evaluations: 4
    seed: 2
    health: {prompts: 2, tokens: 8, max_accuracy_gap: 0.25, max_chosen_drop: 1.0, min_right_language: 0.6,
             max_repetition: 0.4, min_length: 0.4}

merged:
  dtype: bfloat16
  max_difference: 1.0
  max_served_difference: 2.0

quantized:
  nf4: {model: dpo, format: nf4}
  int8: {model: dpo, format: int8}

metrics:
  split: validation
  suites: [benchmark, preference, language, perplexity, translation]
  models:
    base: {model: base, engine: transformers, system_prompt: false}
    prompted: {model: base, engine: transformers, system_prompt: true}
    dpo: {model: dpo, engine: transformers, system_prompt: false}
    nf4: {model: nf4, engine: transformers, system_prompt: false}
    int8: {model: int8, engine: transformers, system_prompt: false}
  headline: dpo
  baselines: [base, prompted]
  reference_model: base
  answer_tokens: 64
  translation_tokens: 48

win_rate: {}
"""
WIN_RATE = "win_rate:\n  base: {opponent: base, model: base, engine: transformers, min_label_mass: 0.5}\n"


ANSWERS = {"prompts": 2, "tokens": 8, "min_right_language": 0.6, "max_repetition": 0.4, "min_length": 0.4}
ALL = {
    "from": "base",
    "seed": 2,
    "weights": {
        "kind": "lora", "rank": 16, "alpha": 32, "dropout": 0.0, "targets": "all-linear", "rslora": False, "dora": False
    },
    "learning_rate": 2.0e-4,
    "scheduler": "cosine",
    "warmup": 0.1,
    "epochs": 1,
    "batch": 8,
    "accumulation": 1,
    "max_length": 512,
    "evaluations": 4,
    "checkpoint": 10,
}  # fmt: skip
ON_PAIRS = {
    "data": "pairs",
    "max_left_out": 0.05,
    "beta": 0.1,
    "health": {**ANSWERS, "max_accuracy_gap": 0.25, "max_chosen_drop": 1.0},
}
OWN: dict[str, dict[str, Any]] = {  # what each method has beside
    "cpt": {"data": "texts"},
    "sft": {"data": "threads", "max_left_out": 0.05, "health": ANSWERS},
    "dpo": {**ON_PAIRS, "losses": {"sigmoid": 1.0, "sft": 1.0}, "label_smoothing": 0.0},
    "kto": {
        **ON_PAIRS,
        "health": {**ANSWERS, "max_chosen_drop": 1.0},
        "desirable_weight": 1.0,
        "undesirable_weight": 1.0,
    },
    "orpo": ON_PAIRS,
    "simpo": {**ON_PAIRS, "gamma": 0.5},
}


def step_line(name: str, method: str, **changes: Any) -> str:
    """A training step as a line of section `adapter`."""
    return f"  {name}: {json.dumps(ALL | {'method': method} | OWN[method] | changes)}\n"


def make_step(method: str, **changes: Any) -> Any:
    """A training step."""
    return TypeAdapter[Any](Step).validate_python(ALL | {"method": method} | OWN[method] | changes)


def make_pair(
    chosen: int, rejected: int = 1, split: Split = "train", asked: str = "12345", *, cut: bool = False
) -> Pair:
    """A pair with sides of so many characters; the rejected one may be cut."""
    lineages = [
        Lineage(answer="w", generator="g", finish="length" if cut and side else "stop", score=1) for side in (0, 1)
    ]
    return Pair(
        id=f"{chosen}-{rejected}",
        thread="t",
        language="es",
        split=split,
        rule="r",
        judge="j",
        prompt=[Message(role="user", content=asked)],
        chosen=[Message(role="assistant", content="x" * chosen)],
        rejected=[Message(role="assistant", content="x" * rejected)],
        chosen_from=lineages[0],
        rejected_from=lineages[1],
    )


def make_thread(*turns: str, conversation: str = "c", split: Split = "train") -> Thread:
    """A thread whose turns are the user's and the assistant's, one after the other; the last is the expert's answer."""
    return Thread(
        id=f"{conversation}-{len(turns)}-{turns[0]}",
        conversation=conversation,
        language="es",
        group="g",
        split=split,
        prompt=[
            Message(role="assistant" if place % 2 else "user", content=text) for place, text in enumerate(turns[:-1])
        ],
        reference=turns[-1],
    )


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a params.yaml, to run stages in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS, encoding="utf-8")
    return tmp_path


@pytest.fixture
def values(workplace: Path) -> Params:
    """That params.yaml, read."""
    return load(workplace / "params.yaml")


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a folder with a tokenizer of single bytes, three control tokens, and what else is asked for."""

    def make(*, template: str | None = TEMPLATE) -> Path:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        small = Tokenizer(models.BPE({byte: place for place, byte in enumerate(alphabet)}, []))
        small.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        small.decoder = decoders.ByteLevel()
        small.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|tool|>"])
        folder = tmp_path_factory.mktemp("tokenizer")
        PreTrainedTokenizerFast(
            tokenizer_object=small, bos_token="<|im_start|>", eos_token="<|im_end|>", chat_template=template
        ).save_pretrained(folder)
        (folder / "config.json").write_text("{}")
        return folder

    return make


@pytest.fixture(scope="session")
def chat(tokenizer: Callable[..., Path]) -> Chat:
    """A tokenizer and a chat template of the usual kind."""
    return Chat(tokenizer())
