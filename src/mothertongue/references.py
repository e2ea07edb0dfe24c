"""References between the sections of params.yaml: each name exists, means one thing, and can be used where it is."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mothertongue import languages
from mothertongue.params import (
    ASSUMPTION,
    CALIBRATED,
    CHRF,
    PEOPLE,
    WITHOUT_MODEL,
    Conversations,
    FileConversations,
    FolderModel,
    GenerativeJudge,
    Generator,
    GradesJudge,
    HubConversations,
    PackageConversations,
    PairRMJudge,
    Params,
    Preference,
    Problem,
    Rule,
    ServerModel,
    Texts,
    WinRate,
)

RANKS = {"best", "worst"}  # instead of a generator, in the rules of pairs
RATED = {"rated_best", "rated_worst"}  # answers that a source brings
SIDES = {"reference", *RANKS, *RATED}
RESERVED = {*SIDES, *WITHOUT_MODEL, CALIBRATED, "experts"}  # the last one is a row of win rates
NO_RATED = "no source brings people's scores; add one of format preferences or ratings, or take replies: ranked"
REFERENCES = {"experts", "trivial"}  # columns of the report that are no model
SAMPLED = ("generated", "scored", "quantized")  # sections whose entries take a model
FOLDER = "adapter"  # models/adapter is the folder of all adapters


def find_problems(params: Params) -> list[Problem]:
    """Every broken reference and every name with two meanings; empty where there is none."""
    checks = (
        _languages,
        _sources,
        _texts,
        _models,
        _steps,
        _learned_rules,
        _generators,
        _judges,
        _rules,
        _columns,
        _win_rates,
        _rounds,
    )
    return [problem for check in checks for problem in check(params)]


def _languages(params: Params) -> Iterator[Problem]:
    for number, code in enumerate(params.languages):
        if code not in languages.NAMES:
            known = ", ".join(languages.NAMES)
            yield ("languages", number), f"unknown language {code!r}; take one of {known}"
        if code in params.languages[:number]:
            yield ("languages", number), f"{code!r} is a duplicate; delete one"


def _sources(params: Params) -> Iterator[Problem]:
    sources = params.raw.sources
    for number, source in enumerate(sources):
        where = ("raw", "sources", number)
        if any(_overlap(source, other) for other in sources[:number]):
            yield where, "duplicate of an earlier source; delete one"
        if isinstance(source, HubConversations | FileConversations):
            trees = source.format.startswith("oasst_")
            if source.replies and not trees:
                yield (*where, "replies"), f"format {source.format} has no ranked replies; remove it"
            if trees and not source.replies:
                yield (*where, "replies"), "missing; add best, ranked or all"
            if source.columns and source.format != "columns":
                yield (*where, "columns"), f"format {source.format} names no columns; remove it"
            if source.columns and len({*source.columns.user, source.columns.assistant}) <= len(source.columns.user):
                yield (*where, "columns"), "a column is there twice; name each once"
            if source.sides and source.format != "preferences":
                yield (*where, "sides"), f"format {source.format} names no sides; remove it"
            if source.sides and (source.sides.score_chosen is None) != (source.sides.score_rejected is None):
                yield (*where, "sides"), "a score of one side alone; name both, or neither"
            if source.format == "columns" and not source.columns:
                yield (*where, "columns"), "missing; add {user: [...], assistant: ...}"
            if source.ratings and source.format != "ratings":
                yield (*where, "ratings"), f"format {source.format} has no ratings; remove it"
            if source.format == "ratings" and not source.ratings:
                yield (*where, "ratings"), "missing; add {prompt: ..., answer: ..., scores: {...}}"
            if source.ratings and len({source.ratings.prompt, source.ratings.answer, *source.ratings.scores}) < 2 + len(
                source.ratings.scores
            ):
                yield (*where, "ratings"), "a column is there twice; name each once"
        if source.language is not None and source.language not in params.languages:
            yield (*where, "language"), _unknown(source.language, params.languages)
        if isinstance(source, PackageConversations):
            wanted = [source.language] if source.language else params.languages
            missing = sorted(set(wanted) & set(languages.NAMES) - languages.CORPUS)
            if missing:
                names = ", ".join(languages.NAMES[code] for code in missing)
                yield where, f"{source.id} has no {names}; set its language to one that it has, or take another source"


def _texts(params: Params) -> Iterator[Problem]:
    for number, source in enumerate(params.raw.texts):
        where = ("raw", "texts", number)
        if source.language is not None and source.language not in params.languages:
            yield (*where, "language"), _unknown(source.language, params.languages)
        if any(_part(source) == _part(other) for other in params.raw.texts[:number]):
            yield where, "duplicate of an earlier source; delete one"


def _overlap(one: Conversations, other: Conversations) -> bool:
    """Whether two sources read the same rows; a package has a folder for each language."""
    if isinstance(one, PackageConversations) and isinstance(other, PackageConversations):
        same = _package_name(one.id) == _package_name(other.id)
        return same and (one.language == other.language or None in (one.language, other.language))
    return one.source == other.source and _part(one) == _part(other)


def _part(source: Conversations | Texts) -> tuple[str, str | None, str | None]:
    """A file, or a split of a data set or of a subset of one."""
    return source.id, getattr(source, "subset", None), getattr(source, "split", None)


def _package_name(name: str) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub("[-_.]+", "-", name).lower()


def _models(params: Params) -> Iterator[Problem]:
    """A fetched model, the merged model of a step and a level are all models/<name>, so their names are one space."""
    known: dict[str, str] = {}
    for section in ("models", "adapter", "quantized"):
        for name in getattr(params, section):
            if name == FOLDER:
                yield (section, name), f"the name is reserved for models/{FOLDER}; take another"
            if name in known:
                yield (section, name), f"{known[name]}.{name} has this name already; take another"
            if section == "adapter":
                start = params.adapter[name].start
                if start in params.models and start not in _find_local(params):
                    yield (section, name, "from"), _remote(start, "train")
                elif start not in known:
                    later = start != name and start in params.adapter
                    what = f"{start!r} comes later; move it above {name}" if later else _unknown(start, known)
                    yield (section, name, "from"), what
            known.setdefault(name, section)
    for name, model in params.models.items():
        if isinstance(model, FolderModel) and Path(model.id).resolve().is_relative_to(Path("models").resolve()):
            yield ("models", name, "id"), "is in models/, which stages write and DVC removes; take a folder elsewhere"
    full = _find_local(params)
    measured = {column.model for column in params.metrics.models.values()}
    used = {step.start for step in params.adapter.values()}
    used |= {entry.model for section in SAMPLED for entry in getattr(params, section).values()}
    for name, level in params.quantized.items():
        if level.model in params.models and level.model not in full:
            yield ("quantized", name, "model"), _remote(level.model, "quantise")
        elif level.model not in full:
            yield ("quantized", name, "model"), _unknown(level.model, full)
        if name not in measured:
            yield ("quantized", name), f"no entry of metrics.models measures {name}; add one, or delete the level"
    for name in params.adapter:
        if name not in measured | used:
            yield ("adapter", name), f"nothing uses or measures {name}; add it to metrics.models, or delete the step"


def _steps(params: Params) -> Iterator[Problem]:
    for name, step in params.adapter.items():
        where = ("adapter", name)
        if step.method == "cpt" and not params.raw.texts:
            yield (*where, "data"), "raw.texts has no source; add one, or delete the step"
        if step.method != "cpt" and not params.threads.validation and params.metrics.split == "test":
            yield (*where, "health"), "threads.validation is 0, so there is nothing held out to look at; raise it"
        if step.method == "dpo" and step.label_smoothing and "robust" not in step.losses:
            yield (*where, "label_smoothing"), "only the loss robust has it; make it 0, or add that loss"
        if step.method == "dpo" and set(step.losses) == {"sft"}:
            yield (*where, "losses"), "sft alone is no preference loss; add one, or take method sft"
    if params.raw.texts and not any(step.method == "cpt" for step in params.adapter.values()):
        yield ("raw", "texts"), "no step of method cpt trains on texts; add one, or delete the sources"


def _learned_rules(params: Params) -> Iterator[Problem]:
    """The rules that a step names are there, and their pairs are written."""
    names = [rule.name for rule in params.pairs.rules]
    learned = names if params.pairs.learned is None else params.pairs.learned
    for name, step in params.adapter.items():
        rules = step.rules or [] if isinstance(step, Preference) else []
        for number, rule in enumerate(rules):
            where = ("adapter", name, "rules", number)
            if rule not in names:
                yield where, _unknown(rule, names)
            elif rule not in learned:
                yield where, f"pairs.learned leaves out the pairs of {rule!r}; add it there"
            if rule in rules[:number]:
                yield where, f"{rule!r} is a duplicate; delete one"


def _generators(params: Params) -> Iterator[Problem]:
    for name, entry in params.generated.items():
        if name in RESERVED:
            yield ("generated", name), "the name is reserved for rules and reports; take another"
        if entry.model not in (known := _before_pairs(params)):
            yield ("generated", name, "model"), _not_before_pairs(entry.model, known, params)
        if entry.temperature == 0 and entry.n > 1:
            what = f"at temperature 0 all {entry.n} samples are equal; make it 1, or raise temperature"
            yield ("generated", name, "n"), what
        yield from _engine(params, "generated", name, entry)


def _judges(params: Params) -> Iterator[Problem]:
    for name, entry in params.scored.items():
        if name in RESERVED:
            yield ("scored", name), "the name is reserved for rules and reports; take another"
        if entry.model not in (known := _before_pairs(params)):
            yield ("scored", name, "model"), _not_before_pairs(entry.model, known, params)
        elif not isinstance(entry, GenerativeJudge) and entry.model not in params.models:
            what = f"{entry.model!r} is trained here and generates; take one of {', '.join(params.models)}"
            yield ("scored", name, "model"), what
        if isinstance(entry, PairRMJudge) and (others := [code for code in params.languages if code != "en"]):
            what = f"PairRM has learned from English only, and languages has {', '.join(others)}; take another kind"
            yield ("scored", name, "kind"), what
        if isinstance(entry, GradesJudge) and entry.votes > len(entry.criteria):
            what = f"each vote begins with another criterion, and there are {len(entry.criteria)}; make it that at most"
            yield ("scored", name, "votes"), what
        if isinstance(entry, GenerativeJudge):
            yield from _engine(params, "scored", name, entry)
        elif isinstance(params.models.get(entry.model), ServerModel):
            yield ("scored", name, "model"), _remote(entry.model, "judge with")


def _engine(params: Params, section: str, name: str, entry: Generator | GenerativeJudge | WinRate) -> Iterator[Problem]:
    """Engine `server` and models behind a server go together."""
    remote = isinstance(params.models.get(entry.model), ServerModel)
    if remote and entry.engine != "server":
        yield (section, name, "engine"), f"{entry.model!r} is behind a server; write server"
    if not remote and entry.engine == "server" and entry.model in _before_pairs(params):
        yield (section, name, "engine"), f"{entry.model!r} is not behind a server; take vllm or transformers"


def _rules(params: Params) -> Iterator[Problem]:
    names = [rule.name for rule in params.pairs.rules]
    for number, rule in enumerate(params.pairs.rules):
        where = ("pairs", "rules", number)
        if rule.name in names[:number]:
            yield (*where, "name"), f"{rule.name!r} names another rule; take another name"
        sides = (rule.chosen, rule.rejected, rule.judge)
        if sides in [(other.chosen, other.rejected, other.judge) for other in params.pairs.rules[:number]]:
            yield where, "duplicate of an earlier rule; delete one"
        for field, name, known in (
            ("chosen", rule.chosen, SIDES | set(params.generated)),
            ("rejected", rule.rejected, SIDES | set(params.generated)),
            ("judge", rule.judge, {*WITHOUT_MODEL, CALIBRATED, *params.scored}),
        ):
            if name not in known:
                yield (*where, field), _unknown(name, sorted(known))
        if (rule.chosen, rule.rejected) == ("worst", "best"):
            yield where, "takes the worst answer for the better one, so there is no pair; exchange the two sides"
        if rule.judge == ASSUMPTION:
            yield from (((*where, field), what) for field, what in _assumption(rule))
        if rule.judge == PEOPLE:
            yield from (((*where, field), what) for field, what in _people(rule, params.raw.sources))
        if rule.min_margin is None and not (rule.judge in {CALIBRATED, *params.scored} and _takes_one_rank(rule)):
            what = "can be null where a judge of section scored finds exactly one side, best or worst; make it 0"
            yield (*where, "min_margin"), what
        if {rule.chosen, rule.rejected} & RATED:
            yield from (((*where, field), what) for field, what in _rated(rule, params.raw.sources))
        if rule.judge == CALIBRATED and not params.scored:
            yield (*where, "judge"), "there is no judge to take; add one to section scored"
        if rule.judge == CALIBRATED and rule.min_margin:
            yield (*where, "min_margin"), "each judge has its own unit; make it 0, or name a judge"
        if rule.judge == CHRF and rule.rejected == "reference":
            yield (*where, "rejected"), "by chrf nothing is better than the expert's answer; take another side or judge"

    learned = params.pairs.learned
    for number, name in enumerate(learned or []):
        if name not in names:
            yield ("pairs", "learned", number), _unknown(name, names)
        if name in (learned or [])[:number]:
            yield ("pairs", "learned", number), f"{name!r} is a duplicate; delete one"
    if learned == []:
        yield ("pairs", "learned"), "is empty, so there would be no pair; name a rule, or remove it"


def _assumption(rule: Rule) -> Iterator[tuple[str, str]]:
    """What a rule by assumption asks for although no judge ranks its answers."""
    ranks = [(field, name) for field, name in (("chosen", rule.chosen), ("rejected", rule.rejected)) if name in RANKS]
    for field, name in ranks:
        yield field, f"by assumption nothing is {name}; take reference or a generator, or a judge that ranks"
    if rule.chosen == rule.rejected and not ranks:
        yield "rejected", f"by assumption {rule.chosen!r} is not better than itself; take another"
    if rule.min_margin:
        yield "min_margin", "by assumption there are no scores; make it 0, or take a judge that ranks"


def _takes_one_rank(rule: Rule) -> bool:
    return (rule.chosen in RANKS) != (rule.rejected in RANKS)


def _rated(rule: Rule, sources: Sequence[Conversations]) -> Iterator[tuple[str, str]]:
    """What a rule asks for that names an answer of a source."""
    if rule.judge != ASSUMPTION:
        yield "judge", "judges the answers of generators, and not those that a source rated; take assumption"
    if (rule.chosen, rule.rejected) == ("rated_worst", "rated_best"):
        yield "chosen", "takes the worst answer for the better one; exchange the two sides"
    if not any(map(_is_rated, sources)):
        yield "chosen" if rule.chosen in RATED else "rejected", NO_RATED


def _is_rated(source: Conversations) -> bool:
    return isinstance(source, HubConversations | FileConversations) and (
        source.format in ("preferences", "ratings") or source.replies == "ranked"
    )


def _people(rule: Rule, sources: Sequence[Conversations]) -> Iterator[tuple[str, str]]:
    """What a rule by people's scores asks for although only answers that come with a source have some."""
    for field, name in (("chosen", rule.chosen), ("rejected", rule.rejected)):
        if name not in RANKS:
            yield field, f"people's scores are of the answers that a source brings, not of {name}; take best or worst"
    if not any(map(_is_rated, sources)):
        yield "judge", NO_RATED


def _columns(params: Params) -> Iterator[Problem]:
    metrics, threads = params.metrics, params.threads
    if threads.validation + threads.test >= 1:
        yield ("threads",), "validation and test leave nothing to train on; make them smaller"
    if metrics.split == "validation" and not threads.validation:
        yield ("metrics", "split"), "threads.validation is 0, so there is nothing to measure; raise it"
    for number, suite in enumerate(metrics.suites):
        if suite in metrics.suites[:number]:
            yield ("metrics", "suites", number), f"{suite!r} is a duplicate; delete one"
    full = _find_local(params)
    if metrics.reference_model in params.models and metrics.reference_model not in full:
        yield ("metrics", "reference_model"), _remote(metrics.reference_model, "compute with")
    elif metrics.reference_model not in full:
        yield ("metrics", "reference_model"), _unknown(metrics.reference_model, full)
    columns = metrics.models
    engine = next(iter(columns.values())).engine
    for place, (name, column) in enumerate(columns.items()):
        where = ("metrics", "models", name)
        if column.model in params.models and column.model not in full:
            yield (*where, "model"), _remote(column.model, "measure")
        elif column.model not in (every := [*full, *params.quantized]):
            yield (*where, "model"), _unknown(column.model, every)
        elif column.model != name and name in every:
            what = f"the column has the name of a model and measures another; take {name!r}, or rename the column"
            yield (*where, "model"), what
        if column.engine != engine:
            what = f"figures of two engines are not compared; measure all with {engine}, or all with {column.engine}"
            yield (*where, "engine"), what
        if column in list(columns.values())[:place]:
            yield where, "duplicate of an earlier column; delete one"
        if name in REFERENCES:
            yield where, "the name is reserved for a column of the report; take another"
    for number, name in enumerate(metrics.baselines):
        entry = ("metrics", "baselines", number)
        if name not in columns:
            yield entry, _unknown(name, columns)
        if name in metrics.baselines[:number]:
            yield entry, f"{name!r} is a duplicate; delete one"
    if metrics.headline not in columns:
        yield ("metrics", "headline"), _unknown(metrics.headline, columns)
    elif metrics.headline in metrics.baselines:
        yield ("metrics", "headline"), "is a baseline; take a column that is compared with them"
    elif columns[metrics.headline].model == metrics.reference_model and not columns[metrics.headline].system_prompt:
        yield ("metrics", "reference_model"), "is the headline's model, whose rewards would all be 0; take its start"


def _win_rates(params: Params) -> Iterator[Problem]:
    entries = params.win_rate
    for place, (name, entry) in enumerate(entries.items()):
        where = ("win_rate", name)
        if entry.opponent not in {*params.metrics.models, *params.generated}:
            yield (*where, "opponent"), _unknown(entry.opponent, [*params.metrics.models, *params.generated])
        elif entry.opponent in params.metrics.models and entry.opponent in params.generated:
            yield (*where, "opponent"), f"{entry.opponent!r} is a column and a generator; give one another name"
        if entry.model not in params.models:
            yield (*where, "model"), _unknown(entry.model, params.models)
        yield from _engine(params, "win_rate", name, entry)
        if "language" not in params.metrics.suites:
            yield where, "its answers are those of suite language; add that to metrics.suites, or delete the entry"
        if entry in list(entries.values())[:place]:
            yield where, "duplicate of an earlier entry; delete one"


def _rounds(params: Params) -> Iterator[Problem]:
    if not (rounds := params.rounds) or params.metrics.headline not in params.metrics.models:
        return
    model = params.metrics.models[params.metrics.headline].model
    if model not in params.adapter:
        yield (
            ("metrics", "headline"),
            f"{model!r} is no step, and a round starts from what the round before has trained",
        )
        return
    start = find_start(params)
    if rounds.judge not in params.scored:
        yield ("rounds", "judge"), _unknown(rounds.judge, params.scored)
    elif not isinstance(params.scored[rounds.judge], GenerativeJudge):
        yield ("rounds", "judge"), "in rounds the model judges itself; take a judge whose model generates"
    elif params.scored[rounds.judge].model != start:
        yield ("rounds", "judge"), f"in rounds the model judges itself; take a judge with model {start}"
    elif not any(
        rule.judge == rounds.judge
        and "reference" not in (rule.chosen, rule.rejected)
        and (params.pairs.learned is None or rule.name in params.pairs.learned)
        for rule in params.pairs.rules
    ):
        what = f"no rule of pairs ranks answers by {rounds.judge} alone, so nothing is learned from it; add one"
        yield ("rounds", "judge"), what
    if all(entry.model != start for entry in params.generated.values()):
        yield ("rounds",), f"no generator has model {start}, whose answers are judged; add one"
    if not params.threads.validation:
        yield ("rounds",), "threads.validation is 0, so there are no answers to judge in every round; raise it"


def find_start(params: Params) -> str:
    """The fetched model that the training of the headline's model starts from."""
    name = params.metrics.models[params.metrics.headline].model
    for _ in params.adapter:  # at most so many steps, also where two start from each other
        name = params.adapter[name].start if name in params.adapter else name
    return name


def _find_local(params: Params) -> list[str]:
    """The models that have weights here: fetched ones, and those of steps."""
    remote = [name for name, model in params.models.items() if isinstance(model, ServerModel)]
    return [name for name in (*params.models, *params.adapter) if name not in remote]


def _remote(name: str, what: str) -> str:
    return f"{name!r} is behind a server, so its weights are not here to {what}; take another"


def _before_pairs(params: Params) -> list[str]:
    """The models that can answer and judge: fetched ones, and steps trained on no pairs, all steps before included."""
    found = list(params.models)
    for name, step in params.adapter.items():
        if step.data != "pairs" and step.start in found:
            found.append(name)
    return found


def _not_before_pairs(name: str, known: Sequence[str], params: Params) -> str:
    if name in params.adapter or name in params.quantized:
        return f"{name!r} is made from the pairs that this makes; take one of {', '.join(known)}"
    return _unknown(name, known)


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"no {name!r}; take one of {', '.join(dict.fromkeys(known))}"
