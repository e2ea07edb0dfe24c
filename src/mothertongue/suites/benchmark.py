"""Multiple choice with EleutherAI's lm-eval, on our engines and sample store. The module of lm-eval."""

import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mothertongue.errors import BadInput
from mothertongue.measurements import SampleScore
from mothertongue.sampling import LogLikelihood, Model
from mothertongue.suites.data import Question
from mothertongue.suites.subject import Subject

VERSION = 2  # of the task below: raise it when wording or scoring change


def measure(questions: Sequence[Question], subject: Subject) -> list[SampleScore]:
    """One score per question and figure, by the log-likelihood of each choice's text after the question.

    Empty for a subject with a system prompt: the task renders no conversation, so there is no place for one.
    """
    if subject.system_prompt or not questions:
        return []
    samples = run_harness(questions, build_language_model(subject.model))
    if len(samples) != len(questions):
        raise BadInput(f"lm-eval answered {len(samples)} of {len(questions)} questions; see its output in the log")
    scores = []
    for sample in samples:
        question = sample["doc"]
        values = {"accuracy": float(sample["acc"]), "accuracy_per_byte": float(sample["acc_bytes"])}
        scores += [
            SampleScore(
                id=question["id"],
                language=question["language"],
                group=question["id"],
                figure=figure,
                values=[value],
                text=question["choices"][_likeliest(sample)] if figure == "accuracy" else "",
            )
            for figure, value in values.items()
        ]
    return scores


def run_harness(questions: Sequence[Question], language_model: Any) -> list[dict[str, Any]]:
    """lm-eval's samples, one per question: its `doc`, `filtered_resps`, `acc` and `acc_bytes`."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

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
        results: Any = simple_evaluate(
            model=language_model,
            tasks=[task],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            num_fewshot=0,
            bootstrap_iters=0,
            log_samples=True,
        )
    return list(results["samples"]["mothertongue"])


def build_language_model(model: Model) -> Any:
    """An `lm_eval.api.model.LM` that answers from our engines and sample store, for log-likelihood tasks.

    Text is encoded as by lm-eval's own `hf` model. Only for tasks without metric `exact_match`: `is_greedy` of each
    answer is False, because the engines do not return whether a continuation is the likeliest one.
    """
    from lm_eval.api.model import TemplateLM

    class StoredModel(TemplateLM):  # type: ignore[misc]
        tokenizer = model.chat.tokenizer
        eot_token_id = model.chat.tokenizer.eos_token_id

        @property
        def prefix_token_id(self) -> int:
            begin = self.tokenizer.bos_token_id
            return int(self.eot_token_id if begin is None else begin)

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            if add_special_tokens is None:  # the tokenizer's default, but never a second token at the beginning
                prefix = self.tokenizer.decode([self.prefix_token_id])
                add_special_tokens = not string.startswith(prefix)
            return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

        def _loglikelihood_tokens(
            self,
            requests: list[tuple[tuple[str, str], list[int], list[int]]],
            **options: Any,  # noqa: ARG002
        ) -> list[tuple[float, bool]]:
            for (question, choice), _, encoded in requests:
                if not encoded:
                    raise BadInput(f"benchmark: choice {choice!r} after {question[:60]!r} has no token; correct it")
            asked = [LogLikelihood(tuple(context), tuple(continuation)) for _, context, continuation in requests]
            return [(sum(logs), False) for logs in model.log_likelihood(asked, "metrics benchmark")]

        def loglikelihood_rolling(self, requests: Any, **_: Any) -> list[float]:
            raise NotImplementedError("suite benchmark runs multiple choice; perplexity is a suite of its own")

        def generate_until(self, requests: Any, **_: Any) -> list[str]:
            raise NotImplementedError("suite benchmark runs multiple choice; it generates no text")

    return StoredModel()


def _likeliest(sample: dict[str, Any]) -> int:
    logs = [float(response[0]) for response in sample["filtered_resps"]]
    return logs.index(max(logs))


def harness_versions() -> dict[str, str]:
    """The versions of lm-eval and of the task, for the signatures of figures."""
    return {"lm_eval": metadata.version("lm_eval"), "task": str(VERSION)}
