"""Rounds of training in which a model learns from its own judgments of its own answers to its own prompts.

(Self-rewarding language models, Yuan et al. 2024.) Round k is a DVC experiment of the name round-k, one run of the
whole chain in a temporary copy. It starts from the model that round k-1 has trained, and asks it new prompts beside
those of people. What happens between the rounds is here: the new prompts, and how each model grades the same answers.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import click
from ruamel.yaml import YAML

from mothertongue import (
    answers,
    console,
    drift,
    filters,
    judging,
    models,
    new_prompts,
    params,
    sampling,
    sources,
    threads,
)
from mothertongue.errors import BadInput
from mothertongue.files import new_file
from mothertongue.judging import accuracy
from mothertongue.new_prompts import NewPrompt
from mothertongue.params import GenerativeJudge, Model, Params, ServerModel, VersionModel
from mothertongue.records import Answer, RowCounts, Thread, reference_answer
from mothertongue.references import find_start
from mothertongue.rows import read_rows, write_json, write_rows
from mothertongue.store import Store
from mothertongue.suites.data import read_questions, read_sentences
from mothertongue.verdicts import Verdict

PARAMS, SOURCES, SUITES = Path("params.yaml"), Path("data/sources"), Path("data/suites")
FOUND, TABLE = Path("metrics/rounds.json"), Path("metrics/rounds.md")
MODELS = Path("tmp/rounds")  # the models that are asked here, while they are asked
CODE = ("dvc.yaml", "src", "stages", "data", "requirements/engines.json")  # what a round depends on beside params.yaml
OURS = re.compile(r"round-\d+\.jsonl")  # names of files of new prompts
T = TypeVar("T")


@click.command()
@click.argument("count", type=click.IntRange(min=1))
def main(count: int) -> None:
    """Run COUNT rounds, by section `rounds` of params.yaml; metrics/rounds.json gets what they found.

    A round that has finished is kept, and one that was killed goes on where it was. No further round is run where a
    model grades the same answers higher than the first model by more than rounds.max_drift.
    """
    values = params.load()
    if values.rounds is None:
        raise BadInput(f"{PARAMS}: rounds: missing; add it, or `make recipe NAME=selfreward.demo`")
    if own := [source.id for source in values.raw.sources if OURS.fullmatch(source.id)]:
        raise BadInput(
            f"{PARAMS}: raw.sources: {own[0]} is of a round; take the parameters that rounds began with again"
        )
    _remove_added()
    shutil.rmtree(MODELS, ignore_errors=True)  # of a killed run
    rows, _ = sources.read_sources(values.raw, values.languages, SOURCES)
    rows.sort(key=lambda row: row.id)  # as in data/raw.jsonl: of duplicates the first is kept
    asked, _ = threads.extract_threads(filters.filter_conversations(rows, values.filtered)[0], values.threads)
    try:
        run_rounds(count, values, asked)
    finally:
        shutil.rmtree(MODELS, ignore_errors=True)


def run_rounds(count: int, values: Params, asked: Sequence[Thread]) -> None:
    """Run `count` rounds; `asked` are the threads of people.

    Raises BadInput where a round fails, and after one whose model praises itself.
    """
    assert values.rounds
    start = values.models[find_start(values)]
    assert not isinstance(start, ServerModel)  # a step starts from it
    first = before = MODELS / "first"
    ask(_fetch, start, first)
    held_out = [thread for thread in asked if thread.split == "validation"]
    done: list[drift.Round] = []
    written: list[NewPrompt] = []
    frozen: list[Answer] = []
    for number in range(1, count + 1):
        label = f"round {number}"
        drafts = ask(_write_prompts, before, values, asked, label)
        fresh, counts = select_prompts(drafts, values, asked, written)
        console.say(f"{label}: new prompts {counts}")
        if not fresh:
            raise BadInput(f"{label}: no new prompt is left ({counts}); ask for more in rounds.prompts")
        written += fresh
        commit = run_round(number, start, values, fresh)
        frozen = frozen or _read_frozen(commit, values, held_out)
        start = VersionModel(
            source="version",
            id=values.metrics.models[values.metrics.headline].model,
            revision=commit,
            dtype=start.dtype,
        )
        now = MODELS / f"round-{number}"
        ask(_fetch, start, now)
        gaps = measure_drifts(now, first, values, held_out, frozen)
        done.append(
            drift.Round(round=number, commit=commit, prompts=counts, experts=gaps[0], frozen=gaps[1], own=gaps[2])
        )
        _write(done)
        if praise := drift.find_praise(done[-1], values.rounds.max_drift):
            limit = f"over rounds.max_drift {values.rounds.max_drift:g}"
            raise BadInput(f"round-{number}: its model {praise}, {limit}; no further round is run, see {TABLE}")
        if before != first:
            shutil.rmtree(before)
        before = now
    console.say(f"{TABLE}: {len(done)} rounds")


def measure_drifts(
    now: Path, first: Path, values: Params, held_out: Sequence[Thread], frozen: Sequence[Answer]
) -> list[drift.Drift]:
    """How much higher the model in `now` grades the experts', the frozen and its own answers than the first model."""
    same = [[reference_answer(thread) for thread in held_out], frozen]
    own, ours, _ = ask(_judge, now, values, held_out, same, True)
    _, theirs, signature = ask(_judge, first, values, held_out, [*same, own], False)
    return [
        drift.measure_drift(held_out, *lists, values.seed, signature)
        for lists in zip([*same, own], ours, theirs, strict=True)
    ]


def select_prompts(
    drafts: Sequence[tuple[NewPrompt, str]], values: Params, asked: Sequence[Thread], before: Sequence[NewPrompt]
) -> tuple[list[NewPrompt], RowCounts]:
    """The new prompts that are no near copies of prompts that are learned from, or of what models are measured on."""
    texts = {
        kept: [m.content for t in asked if (t.split == "train") == kept for m in t.prompt if m.role == "user"]
        for kept in (True, False)
    }
    measured = [row.question for row in read_questions(SUITES / "benchmark.jsonl", values.languages)]
    sentences = read_sentences(SUITES / "translation.jsonl", values.languages)
    measured += [text for row in sentences for text in row.text.values()]
    return new_prompts.select_prompts(
        drafts, [*texts[True], *(row.prompt for row in before)], [*texts[False], *measured], values.filtered
    )


# What needs a model


def ask(work: Callable[..., T], *arguments: Any) -> T:
    """The result of a function, in a process of its own: vLLM gives a GPU's memory back at the end of its process."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(work, *arguments).result()
    except BrokenProcessPool as error:
        raise BadInput(f"{console.LOGS}/rounds.log: a model's process ended; see there, and run again") from error


def _fetch(model: Model, folder: Path) -> None:
    with console.redirected(console.LOGS / "rounds.log"):
        models.fetch(model, folder)


def _find_judge(values: Params) -> GenerativeJudge:
    assert values.rounds
    judge = values.scored[values.rounds.judge]
    assert isinstance(judge, GenerativeJudge)  # which references.py checks
    return judge


def _write_prompts(folder: Path, values: Params, asked: Sequence[Thread], label: str) -> list[tuple[NewPrompt, str]]:
    assert values.rounds
    engine = _find_judge(values).engine
    assert engine != "server"  # a round trains the judge's model
    with console.redirected(console.LOGS / "rounds.log"):
        model = sampling.Model(folder, engine, Store())
        return new_prompts.write_prompts(asked, values.rounds.prompts, values.seed, model, label)


def _judge(
    folder: Path, values: Params, asked: Sequence[Thread], given: Sequence[Sequence[Answer]], with_own: bool
) -> tuple[list[Answer], list[list[Verdict]], str]:
    """A model's own answers if asked for, its verdicts on each list of answers and on these, and its signature."""
    assert values.rounds
    judge = _find_judge(values)
    name, generator = next((n, g) for n, g in sorted(values.generated.items()) if g.model == judge.model)
    assert judge.engine != "server"  # a round trains the judge's model
    assert generator.engine != "server"
    with console.redirected(console.LOGS / "rounds.log"):
        store = Store()
        model = sampling.Model(folder, judge.engine, store)
        speaker = model if generator.engine == judge.engine else sampling.Model(folder, generator.engine, store)
        own = answers.generate_answers(asked, name, generator, values.seed, speaker)[0] if with_own else []
        lists = [*given, own] if with_own else given
        verdicts = [judging.judge_answers(asked, each, values.rounds.judge, judge, model) for each in lists]
        return own, verdicts, accuracy.build_signature(values.languages, values.rounds.judge, judge, model)


# DVC's experiments


def run_round(number: int, start: Model, values: Params, fresh: Sequence[NewPrompt]) -> str:
    """The commit of a round's experiment, which is run where there is none with these parameters, files and prompts."""
    name, path = f"round-{number}", SOURCES / f"round-{number}.jsonl"
    changed = YAML(typ="safe", pure=True).load(PARAMS)
    changed["raw"]["sources"] += [{"source": "file", "id": path.name, "format": "prompts"}]
    changes = [f"raw.sources={_format_override(changed['raw']['sources'])}"]
    if start != values.models[find_start(values)]:
        changed["models"][find_start(values)] = start.model_dump()
        changes += [f"++models.{find_start(values)}={_format_override(start.model_dump())}"]
    with _added(path, fresh):
        if commit := _find(name, changed):
            console.say(f"{name}: done before, {commit[:7]}")
            return commit
        baseline = _git("rev-parse", "HEAD").strip()
        for commit, reference in _list(name):
            if reference.startswith(f"refs/exps/{baseline[:2]}/{baseline[2:]}/"):
                kept = f"{commit[:7]}, which is kept as {name}-before"
                console.say(f"{name}: run again, because files or parameters differ from those of {kept}")
                _git("update-ref", f"{reference}-before", commit)
                _git("update-ref", "-d", reference)
        options = [part for change in changes for part in ("--set-param", change)]
        subprocess.run([sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, *options], check=False)
        commit = _find(name, changed)
    if not commit:
        raise BadInput(f"{name}: the experiment failed, see above; `make rounds` goes on where it was")
    return commit


def _find(name: str, changed: Any) -> str | None:
    """The commit of an experiment of that name that has these parameters and the files of the workspace."""
    for commit, _ in _list(name):
        same = YAML(typ="safe", pure=True).load(_git("show", f"{commit}:{PARAMS}")) == changed
        if same and not _git("diff", "--name-only", commit, "--", *CODE):
            return commit
    return None


def _list(name: str) -> list[tuple[str, str]]:
    """(commit, reference) of each experiment of that name; there may be one on each commit."""
    lines = _git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    pairs = (line.split() for line in lines)
    return [(commit, reference) for commit, reference in pairs if reference.split("/")[4:] == [name]]


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, check=False).stdout.decode()


def _format_override(value: Any) -> str:
    """A value as `dvc exp run --set-param` reads it: YAML in one line, all text quoted, but keys."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_format_override(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_format_override, value))}]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "null" if value is None else str(value)


@contextmanager
def _added(path: Path, fresh: Sequence[NewPrompt]) -> Iterator[None]:
    """The file of new prompts, known to git: the copy that an experiment runs in has no other files."""
    write_rows(path, fresh, key="prompt")
    _git("add", "--force", str(path))
    try:
        yield
    finally:
        _remove_added()


def _remove_added() -> None:
    """Remove files of new prompts that are in no commit, such as those of a killed run."""
    added = _git("diff", "--cached", "--name-only", "--diff-filter=A", "-z", "--", str(SOURCES)).split("\0")
    for path in map(Path, filter(None, added)):
        if OURS.fullmatch(path.name):
            _git("rm", "--cached", "--quiet", "--force", "--", str(path))
            path.unlink(missing_ok=True)


def _read_frozen(commit: str, values: Params, held_out: Sequence[Thread]) -> list[Answer]:
    """The answers to held-out threads in a round's experiment."""
    from dvc.api import DVCFileSystem

    version, known = DVCFileSystem(rev=commit), {thread.id for thread in held_out}
    found: list[Answer] = []
    for name in values.generated:
        path, copy = f"data/generated/{name}.jsonl", MODELS / f"{name}.jsonl"
        copy.write_bytes(version.read_bytes(path))  # and no link to the file in DVC's cache
        if hashlib.md5(copy.read_bytes()).hexdigest() != version.info(path)["md5"]:
            raise BadInput(
                f"{path} of commit {commit}: is damaged in DVC's cache; delete the file of that digest there, then"
                " `dvc exp remove round-1`, and run again"
            )
        found += [row for row in read_rows(copy, Answer) if row.thread in known]
    return found


def _write(done: Sequence[drift.Round]) -> None:
    write_json(FOUND, [row.model_dump() for row in done])
    with new_file(TABLE) as file:
        file.write(drift.render_rounds(done).encode())


if __name__ == "__main__":
    main()
