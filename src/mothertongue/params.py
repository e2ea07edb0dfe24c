"""A typed mirror of params.yaml: one frozen, strict class per section, every error reported at once with its line."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

import click
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mothertongue.errors import BadInput


def _printed(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise PydanticCustomError("id", "input should be text that can be printed")
    return text


def _commit(revision: str) -> str:
    if not re.fullmatch("[0-9a-f]{40}", revision):
        # What a branch or a tag names changes, and nothing here would notice.
        raise PydanticCustomError(
            "commit", "input should be a commit of the repository, 40 hex digits, and no branch or tag"
        )
    return revision


def _inside(path: str) -> str:
    if PurePosixPath(path).as_posix() != path or not path.strip(".") or path[0] == "/" or ".." in path.split("/"):
        # DVC follows what lies in data/sources, and one file has one name there.
        raise PydanticCustomError("inside", "input should be the path of a file in data/sources, from there")
    return path


Id = Annotated[str, AfterValidator(_printed)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Share = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["bfloat16", "float32"]


class Section(BaseModel):
    """What all sections share: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Package(Section):
    """Something that a Python package carries; `revision` is the package's version."""

    source: Literal["package"]
    id: Id
    revision: str


class Hub(Section):
    """A repository of the Hugging Face hub at a pinned commit."""

    source: Literal["hub"]
    id: Id
    revision: Annotated[str, AfterValidator(_commit)]


class Folder(Section):
    """A local folder in the hub's format."""

    source: Literal["folder"]
    id: Id


Model = Annotated[Package | Hub | Folder, Field(discriminator="source")]
# The model to adapt, or another one. A mistake is explained for the one that was meant.
BaseOrModel = Annotated[
    Annotated[Literal["base"], Tag("<text>")] | Annotated[Model, Tag("<mapping>")],
    Discriminator(lambda value: "<text>" if isinstance(value, str) else "<mapping>"),
]


class Base(Section):
    """The model to adapt."""

    model: Model
    dtype: Dtype


Format = Literal["oasst_trees", "oasst_messages", "messages"]
Replies = Literal["best", "all"]  # which of several replies to one message of OpenAssistant's are followed


class PackageConversations(Package):
    """Conversations that a package carries."""

    format: Literal["chatterbot"]


class HubConversations(Hub):
    """Rows of a split of a data set on the hub."""

    format: Format
    split: str
    replies: Replies = "best"  # of OpenAssistant's formats


class FileConversations(Section):
    """A JSONL file in data/sources/."""

    source: Literal["file"]
    id: Annotated[Id, AfterValidator(_inside)]
    format: Format
    replies: Replies = "best"  # of OpenAssistant's formats


Conversations = Annotated[PackageConversations | HubConversations | FileConversations, Field(discriminator="source")]


class Raw(Section):
    """Where conversations come from."""

    sources: Annotated[list[Conversations], Field(min_length=1)]


class Filtered(Section):
    """What a conversation must have to be learned from."""

    min_language: Share  # probability of the language over the whole conversation
    min_words: Annotated[int, Field(ge=1)]  # words of the assistant's shortest turn
    max_words: Annotated[int, Field(ge=1)]  # words of the longest turn
    min_letters: Share  # letters among the characters that are not white space


class Threads(Section):
    """Shares of conversations that are kept out of training."""

    validation: Share
    test: Annotated[float, Field(gt=0, lt=1)]  # without held-out conversations nothing can be measured


class Generator(Section):
    """Who answers, and how."""

    model: BaseOrModel
    guide: bool  # put prompts/guide before the conversation
    n: Annotated[int, Field(ge=1)]
    temperature: Annotated[float, Field(ge=0)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_tokens: Annotated[int, Field(ge=1)]


class RubricJudge(Section):
    """A model that reads prompts/rubric and says a number; the score is that number's expectation."""

    kind: Literal["rubric"]
    model: BaseOrModel
    min_mass: Share  # probability that the score tokens must hold together, else the verdict is `unparsed`


ASSUMPTION = "assumption"  # what a rule names in place of a judge where it takes the chosen side to be better


class Rule(Section):
    """Which answer is chosen, which is rejected, and the judge that ranks them, or `assumption`."""

    name: Name
    chosen: Name  # reference, best, worst, or a generator (its best)
    rejected: Name  # reference, best, worst, or a generator (its worst)
    judge: Name
    min_margin: Annotated[float, Field(ge=0)]  # in the judge's unit; 0 by assumption


class Pairs(Section):
    """How pairs are made."""

    rules: Annotated[list[Rule], Field(min_length=1)]
    max_cut_rejected: Share  # share of a rule's rejected sides cut at max_tokens, above which no pairs are written


class Adapter(Section):
    """DPO with LoRA."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]  # of the weights to start from, and of the order of the pairs
    rank: Annotated[int, Field(ge=1)]
    alpha: Annotated[float, Field(gt=0)]
    dropout: Share
    beta: Annotated[float, Field(gt=0)]
    sft_weight: Annotated[float, Field(ge=0)]  # weight of the negative log-likelihood of the chosen side
    learning_rate: Annotated[float, Field(gt=0)]
    scheduler: Literal["linear", "cosine", "constant"]
    warmup: Share  # share of all steps
    epochs: Annotated[float, Field(gt=0)]
    batch: Annotated[int, Field(ge=1)]
    accumulation: Annotated[int, Field(ge=1)]
    max_length: Annotated[int, Field(ge=2)]  # tokens of prompt and answer together
    max_cut: Share  # share of pairs longer than that, above which training does not start
    evaluations: Annotated[int, Field(ge=1)]  # times the validation pairs are measured


class Merged(Section):
    """How the merged model is stored, and how far it may be from base and adapter."""

    dtype: Dtype
    max_difference: Annotated[float, Field(gt=0)]  # nats, of any token's log-probability


class Measured(Section):
    """A column of the report."""

    model: Annotated[str, Field(pattern=r"^(base|merged|quantized/[a-z0-9_]+)$")]  # the folder under models/
    system_prompt: bool  # put prompts/guide before every conversation


class Metrics(Section):
    """What is measured, on which split, and how long a model may answer, in tokens."""

    split: Literal["validation", "test"]  # choices are made on validation; test is for others, once
    models: Annotated[dict[Name, Measured], Field(min_length=1)]
    baselines: Annotated[list[Name], Field(min_length=1)]  # measured models that all others are compared with
    answer_tokens: Annotated[int, Field(ge=1)]
    translation_tokens: Annotated[int, Field(ge=1)]


class Params(Section):
    """The whole of params.yaml."""

    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    base: Base
    raw: Raw
    filtered: Filtered
    threads: Threads
    generated: Annotated[dict[Name, Generator], Field(min_length=1)]
    scored: Annotated[dict[Name, RubricJudge], Field(min_length=1)]
    pairs: Pairs
    adapter: Adapter
    merged: Merged
    quantized: Annotated[list[Literal["nf4", "int8"]], Field(min_length=1)]
    metrics: Metrics


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check all of params.yaml. Raises BadInput with one line per mistake."""
    # DVC looks at the files under src/ here: those must be what runs, not the installed ones of another copy.
    if (ours := Path("src/mothertongue/params.py")).exists() and not ours.samefile(__file__):
        raise BadInput(f"{ours} is not what runs, {__file__} is; export PYTHONPATH=src and run again")
    try:
        text = path.read_text(encoding="utf-8")
        params = Params.model_validate(YAML(typ="safe", pure=True).load(text))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); run from the project's top folder") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 ({error.reason} at byte {error.start + 1}); save it as UTF-8") from error
    except YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise BadInput(f"{place}: not YAML ({problem or ' '.join(str(error).split())}); mend it") from error
    except ValidationError as error:
        wrong = [_explain(e) for e in error.errors()]
    except (ValueError, RecursionError) as error:  # a date that is none, a number too long, brackets without end
        raise BadInput(f"{path}: a value cannot be read ({' '.join(str(error).split())}); mend it") from error
    else:
        wrong = _wrong_names(params)
        if not wrong:
            return params
    tree = YAML(typ="rt").load(text)
    raise BadInput("\n".join(f"{path}:{_place(tree, where)}: {what}" for where, what in wrong))


T = TypeVar("T")


def named(section: str, entries: Mapping[str, T], name: str) -> T:
    """The entry of a section that a stage was told on its command line. Raises BadInput where there is none."""
    if name not in entries:
        raise BadInput(f"params.yaml: {section}: no {name!r}; take one of {', '.join(sorted(entries))}")
    return entries[name]


Mistake = tuple[tuple[str | int, ...], str]  # where it stands, as in ("pairs", "rules", 0, "name"), and what it is


def _explain(error: Any) -> Mistake:
    where = tuple(part for part in error["loc"] if part not in ("<text>", "<mapping>", "[key]"))
    found = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return where, "missing; add it"
        case "extra_forbidden":
            return where, "unknown parameter; remove it or mend its name"
        case "union_tag_not_found":
            return (*where, found["discriminator"].strip("'")), "missing; add it"
        case "union_tag_invalid":
            which = found["discriminator"].strip("'")
            return (*where, which), f"input should be one of {found['expected_tags']}, got {found['tag']!r}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return where, f"input should be a mapping of names to values, got {error['input']!r}"
        case _:
            message = str(error["msg"])
            return where, f"{message[0].lower()}{message[1:]}, got {error['input']!r}"


def _place(tree: Any, where: tuple[str | int, ...]) -> str:
    """Line and dotted name, `12: adapter.beta`; where a name is missing, the line of what it is missing from."""
    names: list[str] = []
    line, node = 1, tree
    for number, part in enumerate(where, start=1):
        try:
            here = node.lc.item(part) if isinstance(part, int) else node.lc.key(part)
            line, node = here[0] + 1, node[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            if number < len(where):
                continue  # the tag of a union, which does not stand in the file
        names.append(str(part))
    return f"{line}: {'.'.join(names) or 'whole file'}"


def _wrong_names(params: Params) -> list[Mistake]:
    """What one section says of another must be there, and a name says one thing."""
    taken = {"reference", "best", "worst"}
    wrong: list[Mistake] = [
        (("generated", name), "the name has a meaning in pairs; take another")
        for name in sorted(taken & set(params.generated))
    ]
    wrong += [
        (("generated", name, "n"), f"at temperature 0 all {entry.n} samples are equal; make it 1, or raise temperature")
        for name, entry in params.generated.items()
        if entry.temperature == 0 and entry.n > 1
    ]
    if ASSUMPTION in params.scored:
        wrong.append((("scored", ASSUMPTION), "the name has a meaning in pairs; take another"))
    if params.threads.validation + params.threads.test >= 1:
        wrong.append((("threads",), "validation and test leave nothing to train on; make them smaller"))
    wrong += [
        (("raw", "sources", number), "stands there already; delete one")
        for number, source in enumerate(params.raw.sources)
        if _content(source) in map(_content, params.raw.sources[:number])
    ]
    wrong += [
        (("raw", "sources", number, "replies"), f"format {source.format} has no ranked replies; remove it")
        for number, source in enumerate(params.raw.sources)
        if source.format == "messages" and "replies" in source.model_fields_set
    ]
    wrong += [
        (("quantized", number), f"{level!r} stands there already; delete one")
        for number, level in enumerate(params.quantized)
        if level in params.quantized[:number]
    ]
    if params.metrics.split == "validation" and not params.threads.validation:
        wrong.append((("metrics", "split"), "threads.validation is 0, so there is nothing to measure; raise it"))
    measured = params.metrics.models
    folders = {"base", "merged"} | {f"quantized/{level}" for level in params.quantized}
    for place, (name, column) in enumerate(measured.items()):
        where = ("metrics", "models", name)
        if column.model not in folders:
            wrong.append(((*where, "model"), f"no {column.model!r}; take one of {', '.join(sorted(folders))}"))
        if column in list(measured.values())[:place]:
            wrong.append((where, "measures what stands there already; delete one"))
    wrong += [
        (("quantized", number), f"no entry of metrics.models measures quantized/{level}; add one, or delete the level")
        for number, level in enumerate(params.quantized)
        if f"quantized/{level}" not in {column.model for column in measured.values()}
    ]
    for number, name in enumerate(params.metrics.baselines):
        if name not in measured:
            what = f"no {name!r}; take one of {', '.join(sorted(measured))}"
            wrong.append((("metrics", "baselines", number), what))
    if set(measured) <= set(params.metrics.baselines):
        wrong.append((("metrics", "models"), "nothing but baselines; add a model to compare with them"))
    names = [rule.name for rule in params.pairs.rules]
    for number, rule in enumerate(params.pairs.rules):
        if rule.name in names[:number]:
            wrong.append((("pairs", "rules", number, "name"), f"{rule.name!r} names another rule; take another name"))
        for field, name, known in (
            ("chosen", rule.chosen, taken | set(params.generated)),
            ("rejected", rule.rejected, taken | set(params.generated)),
            ("judge", rule.judge, {ASSUMPTION, *params.scored}),
        ):
            if name not in known:
                what = f"no {name!r}; take one of {', '.join(sorted(known))}"
                wrong.append((("pairs", "rules", number, field), what))
        if rule.judge == ASSUMPTION:
            wrong += [(("pairs", "rules", number, field), what) for field, what in _unranked(rule)]
    return wrong


def _content(source: Conversations) -> tuple[str, str, str]:
    """What a source is read from, whatever is made of it."""
    return source.source, source.id, source.split if isinstance(source, HubConversations) else ""


def _unranked(rule: Rule) -> list[tuple[str, str]]:
    """What a rule by assumption asks for although nobody ranks its answers."""
    found = [
        (field, f"by assumption nothing is {name}; take reference or a generator, or a judge that ranks")
        for field, name in (("chosen", rule.chosen), ("rejected", rule.rejected))
        if name in ("best", "worst")
    ]
    if rule.chosen == rule.rejected and not found:
        found.append(("rejected", f"by assumption {rule.chosen!r} is not better than itself; take another"))
    if rule.min_margin:
        found.append(("min_margin", "by assumption there are no scores; make it 0, or take a judge that ranks"))
    return found


@click.command()
def main() -> None:
    """Check params.yaml, with each mistake on a line of its own. `make repro` does so before DVC reads it."""
    load()


if __name__ == "__main__":
    main()
