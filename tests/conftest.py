"""What several fast tests start from: a params.yaml of their own, and a tokenizer of a few hundred tokens."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mothertongue.chat import Chat
from mothertongue.params import Params, load

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
  plain: {model: base, engine: transformers, system_prompt: false, n: 1, temperature: 0.8, top_p: 0.95, max_tokens: 48}
  other:
    model: elsewhere
    engine: transformers
    system_prompt: true
    n: 2
    temperature: 0.5
    top_p: 1.0
    max_tokens: 48

scored:
  rubric: {kind: rubric, model: base, engine: transformers, min_label_mass: 0.5}
  second: {kind: rubric, model: base, engine: transformers, min_label_mass: 0.0}

pairs:
  max_cut_rejected: 0.5
  rules: [{name: reference_over_plain, chosen: reference, rejected: plain, judge: second, min_margin: 1}]

adapter:
  dpo:
    from: base
    method: dpo
    data: pairs
    rank: 16
    alpha: 32
    dropout: 0.0
    beta: 0.1
    sft_weight: 1.0
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

merged:
  dtype: bfloat16
  max_difference: 1.0

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
"""


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
