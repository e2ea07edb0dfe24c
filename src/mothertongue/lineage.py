"""Where a row came from and what it entered: from an item of a figure back to a line of a source."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from unicodedata import category

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mothertongue import filters, judging, languages, threads
from mothertongue.errors import BadInput
from mothertongue.judging.win_table import Match
from mothertongue.measurements import SampleScore
from mothertongue.params import PEOPLE, FileConversations, Params, Preference, ServerModel
from mothertongue.records import (
    Answer,
    Conversation,
    Lineage,
    Pair,
    Thread,
    rated_answers,
    reference_answer,
    unit_hash,
)
from mothertongue.rows import R, index_by_id, read_objects, read_rows
from mothertongue.sampling import derive_seed
from mothertongue.sources import parse_source
from mothertongue.verdicts import Verdict


@dataclass(frozen=True)
class Project:
    """The files of a run, read when they are first asked for. `data` and `metrics` are their folders.

    A run may have stopped: a file that is not there has no rows, and is listed in `missing`.
    """

    values: Params
    data: Path
    metrics: Path
    changed: Sequence[str] = ()  # parameters that the run had other values of
    missing: list[Path] = field(default_factory=list)

    def _read(self, path: Path, kind: type[R]) -> list[R]:
        if path.exists():
            return read_rows(path, kind)
        self.missing.append(path)
        return []

    @cached_property
    def conversations(self) -> Mapping[str, Conversation]:
        """All that the sources gave."""
        return {row.id: row for row in self._read(self.data / "raw.jsonl", Conversation)}  # some are there twice

    @cached_property
    def kept(self) -> frozenset[str]:
        """Ids of those that passed the filters."""
        return frozenset(row.id for row in self._read(self.data / "filtered.jsonl", Conversation))

    @cached_property
    def threads(self) -> Mapping[str, Thread]:
        """All threads."""
        return index_by_id(self._read(self.data / "threads.jsonl", Thread))

    @cached_property
    def answers(self) -> Mapping[str, Answer]:
        """Those of all generators, the experts', and those that people rated."""
        paths = [self.data / f"generated/{name}.jsonl" for name in self.values.generated]
        found = [row for path in paths for row in self._read(path, Answer)]
        experts = [reference_answer(thread) for thread in self.threads.values() if thread.reference is not None]
        rated = [answer for thread in self.threads.values() for answer in rated_answers(thread)]
        return index_by_id([*found, *experts, *rated])

    @cached_property
    def verdicts(self) -> Sequence[Verdict]:
        """Those of all judges."""
        paths = [self.data / f"scored/{name}.jsonl" for name in self.values.scored]
        return [row for path in paths for row in self._read(path, Verdict)]

    @cached_property
    def pairs(self) -> Mapping[str, Pair]:
        """All pairs that are written."""
        return index_by_id(self._read(self.data / "pairs.jsonl", Pair))

    @cached_property
    def measured(self) -> Sequence[tuple[str, str, SampleScore]]:
        """(column, suite, item) of all measured models."""
        metrics = self.values.metrics
        return [
            (column, suite, row)
            for column in metrics.models
            for suite in metrics.suites
            for row in self._read(self.metrics / f"measured/{column}/{suite}.items.jsonl", SampleScore)
        ]

    @cached_property
    def matches(self) -> Sequence[tuple[str, Match]]:
        """(entry, comparison) of all win rates."""
        return [
            (name, row)
            for name in self.values.win_rate
            for row in self._read(self.metrics / f"win_rate/{name}.items.jsonl", Match)
        ]


def read_changed(params: Path, lock: Path) -> list[str]:
    """As list_changed, of two files; nothing where there is no lock file. Raises BadInput for one that is none."""
    yaml = YAML(typ="safe", pure=True)
    if not lock.exists():
        return []
    try:
        return list_changed(yaml.load(params), yaml.load(lock) or {})
    except (YAMLError, AttributeError) as error:
        raise BadInput(f"{lock}: no lock file of DVC; mend it, or run `make repro`, which writes it anew") from error


def list_changed(now: Mapping[str, Any], lock: Mapping[str, Any]) -> list[str]:
    """Names of parameters that the stages of a dvc.lock ran with other values of than `now`."""
    found: set[str] = set()
    for stage in lock.get("stages", {}).values():
        for name, value in stage.get("params", {}).get("params.yaml", {}).items():
            found |= set(_compare(name, _look_up(now, name), value))
    return sorted(found)


def _look_up(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _compare(name: str, now: Any, then: Any) -> Iterator[str]:
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        for key in now.keys() | then.keys():
            yield from _compare(f"{name}.{key}", now.get(key), then.get(key))
    elif now != then:
        yield name


def explain(identity: str, project: Project) -> Iterator[str]:
    """Lines of text about the row with an id, from what it entered back to its source.

    The first one names what params.yaml says otherwise than the run had it, the last one the files that would have
    more, and are not there. Raises BadInput where there is no such row.
    """
    if project.changed:
        names = ", ".join(project.changed)
        yield f"params.yaml has changed since the run, and what is said of these is as they are now: {names}"
    yield from _explain(identity, project)
    if project.missing:
        files = Counter(str(path.parent) for path in project.missing)
        few = [str(path) for path in project.missing if files[str(path.parent)] == 1]
        many = [f"{count} files in {folder}" for folder, count in files.items() if count > 1]
        yield f"not there, so not looked at: {', '.join([*few, *many])}"


def _explain(identity: str, project: Project) -> Iterator[str]:
    if pair := project.pairs.get(identity):
        yield from _explain_pair(pair, project)
    elif answer := project.answers.get(identity):
        yield from _explain_answer(answer, project)
    elif judged := project.answers.get(next((row.answer for row in project.verdicts if row.id == identity), "")):
        yield from _explain_answer(judged, project)
    elif thread := project.threads.get(identity):
        yield from _list_answers(thread, project)
        yield from _explain_thread(thread, project)
    elif conversation := project.conversations.get(identity):
        yield from _explain_conversation(conversation, project)
        threads_of = [row for row in project.threads.values() if row.conversation == identity]
        yield from (f"  thread {row.id}: split {row.split}" for row in threads_of)
    elif suite := next((suite for _, suite, row in project.measured if row.id == identity), None):
        if suite in ("benchmark", "translation"):
            yield from _explain_item(identity, suite, project)
        else:
            yield f"item {identity} of suite {suite}: its thread or pair is not in {project.data} any more"
        yield from _list_measured(identity, project)
    else:
        absent = f" ({', '.join(map(str, project.missing))} are not there)" if project.missing else ""
        raise BadInput(
            f"no pair, answer, verdict, thread, conversation or measured item has the id {identity!r}{absent}; take one"
            " of raw, threads, generated, scored or pairs in data/, or of metrics/measured/*/*.items.jsonl, in quotes"
            " where it has a space"
        )


def _explain_item(identity: str, suite: str, project: Project) -> Iterator[str]:
    """A question or a sentence of data/suites; an item of `translation` has its language after the id."""
    path = project.data / f"suites/{suite}.jsonl"
    place, _, code = identity.partition(" ")
    number, row = next(
        ((number, row) for number, row in read_objects(path) if row.get("id") == place) if path.exists() else iter(()),
        (0, {}),
    )
    yield f"item {identity} of {path}:{number}" if row else f"item {identity}, which is not in {path} any more"
    if isinstance(texts := row.get("text"), dict):
        yield from (f"  {each}: {_quote(str(texts.get(each)))}" for each in ("en", code))
    if isinstance(choices := row.get("choices"), list):
        yield f"  question: {_quote(str(row.get('question')))}"
        for place_of, choice in enumerate(choices):
            yield f"  choice{', the right one' if place_of == row.get('answer') else ''}: {_quote(str(choice))}"


def _explain_pair(pair: Pair, project: Project) -> Iterator[str]:
    rule = next((rule for rule in project.values.pairs.rules if rule.name == pair.rule), None)
    margin = "none" if rule is None or rule.min_margin is None else f"{rule.min_margin:g}"
    asked = f" (chosen {rule.chosen}, rejected {rule.rejected}, min_margin {margin})" if rule else ""
    yield f"pair {pair.id}: rule {pair.rule}{asked}, ranked by {pair.judge}, split {pair.split}"
    steps = [
        name
        for name, step in project.values.adapter.items()
        if isinstance(step, Preference) and (step.rules is None or pair.rule in step.rules)
    ]
    use = {"train": "learned by", "validation": "watched during the training of", "test": "held out from"}[pair.split]
    kto = any(project.values.adapter[name].method == "kto" for name in steps)
    unless = ", unless it is longer than max_length" + (
        " or, for kto, good in one pair and bad in another" if kto else ""
    )
    yield f"  {use}: {_join(steps)}{unless if pair.split == 'train' else ''}"
    yield f"  question: {_quote(pair.prompt[-1].content)}"
    for side, (text, lineage) in zip(("chosen", "rejected"), pair.sides, strict=True):
        yield f"  {side}: answer {lineage.answer} {_describe_side(lineage)}: {_quote(text)}"
    yield from _list_measured(pair.id, project)
    for lineage in (pair.chosen_from, pair.rejected_from):
        if answer := project.answers.get(lineage.answer):
            yield from _explain_answer(answer, project, alone=False)
        else:
            yield f"answer {lineage.answer}: not in {project.data} any more; it has changed since the pairs were made"
    if thread := project.threads.get(pair.thread):
        yield from _explain_thread(thread, project)


def _describe_side(lineage: Lineage) -> str:
    score = f", score {lineage.score:g}" if lineage.score is not None else ""
    if lineage.generator == PEOPLE:
        return f"of a source{score}"
    ended = "ended by itself" if lineage.finish == "stop" else "cut at max_tokens"
    return f"by {lineage.generator}, {ended}{score}"


def _explain_answer(answer: Answer, project: Project, *, alone: bool = True) -> Iterator[str]:
    thread = project.threads.get(answer.thread)
    if answer.generator == "reference":
        yield f"answer {answer.id}: the expert's to thread {answer.thread}"
    elif answer.generator == PEOPLE and thread:
        score = thread.rated[answer.index].score
        yield f"answer {answer.id}: a source's to thread {thread.id}, rated {score:g} by people"
        if conversation := project.conversations.get(thread.conversation):
            yield f"  source: {_locate(conversation, project, answer.text)}"
    else:
        yield f"answer {answer.id}: sample {answer.index} of generator {answer.generator} to thread {answer.thread}"
        params = project.values.generated[answer.generator]
        sent = {
            "temperature": f"temperature {params.temperature:g}",
            "top_p": f"top_p {params.top_p:g}",
            "max_tokens": f"at most {params.max_tokens} tokens",
            "seed": f"seed {derive_seed(project.values.seed, answer.thread, answer.index)}",
        }
        model = project.values.models.get(params.model)
        fields = model.fields if isinstance(model, ServerModel) else {}
        prompt = "with" if params.system_prompt else "without"
        request = ", ".join(text for name, text in sent.items() if fields.get(name, name) is not None)
        yield f"  request: model {params.model} by {params.engine}, {prompt} our system prompt, {request}"
        yield f"  {answer.tokens} tokens, {'ended by itself' if answer.finish == 'stop' else 'cut at max_tokens'}"
    yield f"  text: {_quote(answer.text)}"
    for verdict in project.verdicts:
        if verdict.answer == answer.id and thread:
            yield from _explain_verdict(verdict, answer, thread, project)
    if alone:
        for pair in project.pairs.values():
            sides = [name for name, side in (("chosen", pair.chosen_from), ("rejected", pair.rejected_from))
                     if side.answer == answer.id]  # fmt: skip
            if sides:
                yield f"  {sides[0]} in pair {pair.id} by rule {pair.rule}, split {pair.split}"
        if thread:
            yield from _explain_thread(thread, project)


def _explain_verdict(verdict: Verdict, answer: Answer, thread: Thread, project: Project) -> Iterator[str]:
    params = project.values.scored[verdict.judge]
    score = f"score {verdict.score:.3f}" if verdict.score is not None else verdict.outcome
    mass = f", label mass {verdict.label_mass:.3f}" if verdict.label_mass is not None else ""
    compared = f", {verdict.compared} comparisons, {verdict.flips} flips" if verdict.compared else ""
    yield f"  verdict {verdict.id} of judge {verdict.judge} (model {params.model}): {score}{mass}{compared}"
    if verdict.grades:
        yield f"  grades: {', '.join(f'{name} {grade:.3f}' for name, grade in verdict.grades.items())}"
    others = [row for row in project.answers.values() if row.thread == thread.id and row.id != answer.id]
    if params.kind in ("pairwise", "pairrm"):  # with those that it was compared with
        judged = {row.answer for row in project.verdicts if row.judge == verdict.judge}
        others = sorted((row for row in others if row.id in judged), key=lambda row: row.id)
    for text in judging.render_requests(thread, answer, others, params):
        yield "  it read, by params.yaml and the prompts as they are now (before control tokens are escaped):"
        yield from (f"    | {_clean(line)}" for line in text.splitlines())


def _explain_thread(thread: Thread, project: Project) -> Iterator[str]:
    yield f"thread {thread.id}: {thread.language}, split {thread.split}, turn {len(thread.prompt) + 1}"
    conversation = project.conversations.get(thread.conversation)
    if conversation:
        yield f"  {_explain_split(conversation, project)}"
    for message in thread.prompt:
        yield f"  {message.role}: {_quote(message.content)}"
    yield f"  expert: {_quote(thread.reference) if thread.reference is not None else 'none'}"
    learned = [name for name, step in project.values.adapter.items() if step.data == "threads"]
    if learned and thread.split == "train" and thread.reference is not None:
        yield f"  learned by: {_join(learned)}, unless it is longer than max_length"
    yield from _list_measured(thread.id, project)
    if conversation:
        yield from _explain_conversation(conversation, project)


def _explain_split(conversation: Conversation, project: Project) -> str:
    if conversation.unanswered:
        return "why: a prompt without an expert's answer is always in train"
    params = project.values.threads
    place = unit_hash(threads.opening_words(conversation))
    return (
        f"why: drawn by the words of its opening, {place:.4f} of 0 to 1; test is below {params.test:g}, validation"
        f" below {params.test + params.validation:g}"
    )


def _explain_conversation(conversation: Conversation, project: Project) -> Iterator[str]:
    yield f"conversation {conversation.id}: {len(conversation.messages)} turns, from {conversation.source}"
    yield f"  source: {_locate(conversation, project)}"
    params = project.values.filtered
    text = "\n".join(message.content for message in conversation.messages)
    words = [len(languages.split_words(message.content)) for message in conversation.messages]
    answers = [n for n, message in zip(words, conversation.messages, strict=True) if message.role == "assistant"]
    if conversation.id not in project.kept:
        key = filters.find_key(conversation)
        kept = [row for row in project.conversations.values() if row.id in project.kept]
        twice = any(key == filters.find_key(row) for row in kept)
        reason = "duplicate" if twice else filters.drop_reason(conversation, params)
        reason = reason or "not by what params.yaml says now"
        yield f"  dropped by the filters: {reason}"
    elif project.threads and all(row.conversation != conversation.id for row in project.threads.values()):
        yield "  no thread of its own: its turns repeat others', or held-out ones; metrics/threads.json has the reasons"
    shortest = f", shortest answer {min(answers)} words (at least {params.min_words})" if answers else ""
    yield (
        f"  filters: {conversation.language} {languages.probability(text, conversation.language):.2f} (at least"
        f" {params.min_language:g}){shortest},"
        f" longest turn {max(words)} (at most {params.max_words}), letters {filters.letter_share(text):.2f} (at least"
        f" {params.min_letters:g})"
    )


def _locate(conversation: Conversation, project: Project, answer: str | None = None) -> str:
    """File and lines that a conversation was made of, or one of its rated answers; as far as its source has lines."""
    for source in project.values.raw.sources:
        if not isinstance(source, FileConversations) or source.id != conversation.source:
            continue
        path = project.data / "sources" / source.id
        texts = {answer or conversation.messages[-1].content}
        if source.format == "ratings" and answer is None:  # one of several rows
            texts = {each.text for turn in conversation.rated for each in turn.answers}
        found = []
        for number, row in read_objects(path):
            if source.format == "oasst_messages":  # a conversation is a path of rows
                found += [number] * (row.get("text") in texts)
                continue
            rows, _ = parse_source(source, [(f"{path}:{number}", row)], project.values.languages)
            if source.format == "ratings":
                found += [number] * any(_rates(each, conversation, texts) for each in rows)
            else:
                found += [number] * any(each.id == conversation.id for each in rows)
        if not found:
            return f"not found in {path}, which may have changed since the run"
        ends = " (its last message)" if source.format == "oasst_messages" and answer is None else ""
        several = ", " if source.format == "ratings" else " or "
        return f"{path}:{several.join(map(str, found))}{ends}"
    return f"{conversation.source} (no file of lines)"


def _rates(row: Conversation, conversation: Conversation, answers: Set[str]) -> bool:
    """Whether a row of ratings has the prompt of a conversation, and one of the answers."""
    same = row.language == conversation.language and row.messages[:-1] == conversation.messages[:-1]
    return same and row.messages[-1].content in answers


def _list_answers(thread: Thread, project: Project) -> Iterator[str]:
    said: dict[str, list[str]] = {}
    for verdict in project.verdicts:
        score = f"{verdict.score:.3f}" if verdict.score is not None else verdict.outcome
        said.setdefault(verdict.answer, []).append(f"{verdict.judge} {score}")
    for answer in sorted(project.answers.values(), key=lambda answer: (answer.generator, answer.index)):
        if answer.thread == thread.id:
            how = "rated by people" if answer.generator == PEOPLE else f"answered by {answer.generator}"
            verdicts = f" ({', '.join(said[answer.id])})" if answer.id in said else ""
            yield f"  {how}: {answer.id}{verdicts}: {_quote(answer.text)}"
    for pair in project.pairs.values():
        if pair.thread == thread.id:
            yield f"  in pair {pair.id} by rule {pair.rule}"


def _list_measured(identity: str, project: Project) -> Iterator[str]:
    """What a measured item counted as in each figure of each column: its value, or sufficient statistics of several."""
    by_place: dict[tuple[str, str], list[SampleScore]] = {}
    for column, suite, row in project.measured:
        if row.id == identity:
            by_place.setdefault((column, suite), []).append(row)
    for (column, suite), rows in by_place.items():
        figures = ", ".join(f"{row.figure} {_describe_values(row.values)}" for row in rows)
        yield f"  measured on {column}, suite {suite}: {figures}"
        if text := next((row.text for row in rows if row.text), ""):
            yield f"    answer: {_quote(text)}"
    for name, entry in project.values.win_rate.items():
        rows_of = [row for each, row in project.matches if each == name and row.answered == identity]
        for control in (False, True):
            if found := [_describe_match(row) for row in rows_of if row.is_control == control]:
                how = ", as its control under another question" if control else ""
                yield f"  win rate {name}, against {entry.opponent}{how}: {', '.join(found)}"


def _describe_match(row: Match) -> str:
    reason = " (a flip)" if row.flip else " (the same words)" if row.alike else ""
    return f"{row.column} {row.outcome}{reason}{f' (question of {row.id})' if row.is_control else ''}"


def _describe_values(values: Sequence[float]) -> str:
    return " of ".join(f"{value:g}" for value in values) if len(values) < 3 else "(counts)"


def _join(names: Sequence[str]) -> str:
    return ", ".join(names) or "no step"


def _quote(text: str) -> str:
    flat = _clean(" ".join(text.split()))
    return f"«{flat[:200]}{'…' if len(flat) > 200 else ''}»"


def _clean(text: str) -> str:
    """A text without characters that a terminal would obey."""
    return "".join(character for character in text if category(character) not in ("Cc", "Cf"))
