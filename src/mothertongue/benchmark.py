"""Multiple choice with EleutherAI's harness, on questions in a local file. The room of lm-eval."""

import logging
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from mothertongue import hardware, memory
from mothertongue.errors import BadInput
from mothertongue.params import Dtype
from mothertongue.records import Item, Row, Said, read_rows

VERSION = 2  # of the task below: raise it when wording or scoring change


def _distinct(choices: list[str]) -> list[str]:
    if len({choice.strip() for choice in choices}) < len(choices):
        raise PydanticCustomError("choices", "no two choices should be equal")
    return choices


class Question(Row):
    """A question with four choices; `answer` is the place of the right one, from 0."""

    id: str
    language: str
    topic: str
    question: Said
    choices: Annotated[list[Said], Field(min_length=4, max_length=4), AfterValidator(_distinct)]
    answer: Annotated[int, Field(ge=0, le=3)]


def read(path: Path, language: str) -> list[Question]:
    """The questions in one language; none where the file has no such language."""
    return [row for row in read_rows(path, Question) if row.language == language]


def measure(questions: list[Question], model: Path, dtype: Dtype) -> list[Item]:
    """One item per question and figure, by the log-likelihood of each choice's text after the question."""
    if not questions:
        return []
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "questions.jsonl"
        rows.write_text("".join(q.model_dump_json() + "\n" for q in questions), encoding="utf-8")
        task = {
            "task": "mothertongue",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(rows)}, "cache_dir": folder},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}\n",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_bytes"}],
            "metadata": {"version": VERSION},
        }
        if not (gpu := hardware.gpu()):
            memory.keep_freed()
        language_model = HFLM(
            pretrained=str(model),
            dtype=dtype,
            batch_size=64 if gpu else 16,
            device="cuda" if gpu else "cpu",
            trust_remote_code=False,
            use_safetensors=True,
        )
        results: Any = simple_evaluate(
            model=language_model,
            tasks=[task],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            num_fewshot=0,
            bootstrap_iters=0,
            log_samples=True,
        )
    samples = results["samples"]["mothertongue"]
    if len(samples) != len(questions):
        raise BadInput(f"lm-eval answered {len(samples)} of {len(questions)} questions; see its output above")
    items = []
    for sample in samples:
        identity = sample["doc"]["id"]
        said = sample["doc"]["choices"][_likeliest(sample)]
        items.append(Item(id=identity, group=identity, figure="accuracy", values=[float(sample["acc"])], text=said))
        items.append(
            Item(id=identity, group=identity, figure="accuracy_per_byte", values=[float(sample["acc_bytes"])], text="")
        )
    return items


def _likeliest(sample: dict[str, Any]) -> int:
    logs = [float(response[0]) for response in sample["filtered_resps"]]
    return logs.index(max(logs))


def harness() -> dict[str, str]:
    """What a figure's signature says of the harness: its version and the task's."""
    return {"lm_eval": metadata.version("lm_eval"), "task": str(VERSION)}
