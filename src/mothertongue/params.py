"""A typed mirror of params.yaml: one frozen, strict class per section, every error reported at once with its line."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mothertongue.errors import BadInput


def _check_printable(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise PydanticCustomError("id", "input should be text that can be printed")
    return text


def _check_name(name: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_]{0,29}", name):  # names become paths, and keys in dvc.yaml
        what = "input should be at most 30 small letters, digits and _, the first a letter"
        raise PydanticCustomError("name", what)
    return name


def _check_commit(revision: str) -> str:
    if not re.fullmatch("[0-9a-f]{40}", revision):
        # A branch or a tag moves, and nothing here would notice.
        raise PydanticCustomError(
            "commit", "input should be a commit of the repository, 40 hex digits, and no branch or tag"
        )
    return revision


def _check_relative(path: str) -> str:
    if PurePosixPath(path).as_posix() != path or not path.strip(".") or path[0] == "/" or ".." in path.split("/"):
        # DVC tracks data/sources, and a file has one name there.
        raise PydanticCustomError("inside", "input should be the path of a file, relative to data/sources")
    return path


def _check_url(url: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+[^\s?#@]*", url):
        # A name and a password in a URL would be in params.yaml, and in every record of a run.
        raise PydanticCustomError(
            "url", "input should be http:// or https:// and a host, without user, query or fragment"
        )
    return url.rstrip("/")


def _check_targets(found: object) -> object:
    names = found if isinstance(found, list) else []
    if found != "all-linear" and not (names and all(isinstance(name, str) for name in names)):
        raise PydanticCustomError("targets", "input should be all-linear, or a list of names of layers")
    return found


def _check_weight(weight: float) -> float:
    if not weight:
        raise PydanticCustomError("weight", "input should not be 0: leave the column out")
    return weight


Id = Annotated[str, AfterValidator(_check_printable)]
Name = Annotated[str, AfterValidator(_check_name)]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]  # ISO 639 code, quoted: YAML 1.1 reads no as false
Share = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["bfloat16", "float32"]
LocalEngine = Literal["vllm", "transformers"]
Engine = Literal["vllm", "transformers", "server"]


class Section(BaseModel):
    """Base of all sections: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Package(Section):
    """Data or a model inside a Python package; `revision` is the package's version."""

    source: Literal["package"]
    id: Id
    revision: str


class Hub(Section):
    """A repository of the Hugging Face hub at a pinned commit."""

    source: Literal["hub"]
    id: Id
    revision: Annotated[str, AfterValidator(_check_commit)]


class PackageModel(Package):
    """A model in a Python package, as one GGUF file."""

    dtype: Dtype


class HubModel(Hub):
    """A model on the Hugging Face hub."""

    dtype: Dtype


class FolderModel(Section):
    """A model in a local folder in the hub's format."""

    source: Literal["folder"]
    id: Id
    dtype: Dtype


class VersionModel(Section):
    """A model that this project made: models/<id> of one of its commits, such as that of an experiment."""

    source: Literal["version"]
    id: Name
    revision: Annotated[str, AfterValidator(_check_commit)]
    dtype: Dtype


def _check_variable(name: str) -> str:
    if not re.fullmatch("[A-Z][A-Z0-9_]*", name):
        raise PydanticCustomError("variable", "should be the name of an environment variable, such as VENDOR_KEY")
    return name


class Price(Section):
    """What a server's owner takes for a million tokens, in a currency of your choice."""

    prompt: Annotated[float, Field(ge=0)]
    completion: Annotated[float, Field(ge=0)]


class ServerModel(Section):
    """A model behind a server with OpenAI's interface. It answers and judges; nothing can be trained from it."""

    source: Literal["server"]
    url: Annotated[str, AfterValidator(_check_url)]  # up to `/v1`
    id: Id  # the server's name for the model
    revision: Id  # of what answers, as its owner names it; with another one, all is asked again
    key: Annotated[str, AfterValidator(_check_variable)] | None = None  # the environment variable that has the key
    # Names that this server has for fields of a request, or null for one that it refuses, such as {max_tokens:
    # max_completion_tokens, seed: null, response_format: null}.
    fields: dict[Id, Id | None] = {}
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8  # requests at the same time
    per_minute: Annotated[int, Field(ge=1)] | None = None  # requests that are started, at most
    timeout: Annotated[float, Field(gt=0)] = 120.0  # seconds without a sign of the server
    retries: Annotated[int, Field(ge=0)] = 12  # after 0.5, 1, 2, 4, 8, 8, ... seconds, or as the server says
    price: Price | None = None  # so that the report has the cost


# `dtype` is what the model computes in, whatever its weights are stored in.
LocalModel = PackageModel | HubModel | FolderModel | VersionModel
Model = Annotated[LocalModel | ServerModel, Field(discriminator="source")]


Format = Literal["oasst_trees", "oasst_messages", "messages", "columns", "prompts", "preferences", "ratings", "lima"]
# Which of several replies to one message of OpenAssistant's are followed; `ranked` is `best`, and keeps the ranked ones
# with their ranks.
Replies = Literal["best", "ranked", "all"]


class Columns(Section):
    """The fields of a row that are the two turns of a conversation."""

    user: Annotated[list[Id], Field(min_length=1)]  # of several, those with text are joined by an empty line
    assistant: Id


class Sides(Section):
    """The fields of a row that are a prompt and its two answers, under other names than these."""

    prompt: Id
    chosen: Id
    rejected: Id
    score_chosen: Id | None = None  # where the row has scores of both
    score_rejected: Id | None = None


class Ratings(Section):
    """The fields of a row that are a prompt, one answer to it, and numbers that say how good the answer is."""

    prompt: Id
    answer: Id
    # Weight of each column of numbers; negative for one in which lower is better.
    scores: Annotated[dict[Id, Annotated[float, AfterValidator(_check_weight)]], Field(min_length=1)]


class PackageConversations(Package):
    """Conversations in a Python package, which has a folder for each language."""

    format: Literal["chatterbot"]
    language: Language | None = None  # where it is missing: each of `languages`


class HubConversations(Hub):
    """Rows of a split of a data set on the hub."""

    format: Format
    subset: str | None = None  # where the data set has several
    split: str  # or a part of one, such as train[:10%]
    replies: Replies | None = None  # OpenAssistant's formats only, which need it
    columns: Columns | None = None  # format columns only, which needs it
    sides: Sides | None = None  # format preferences only, where its fields have other names
    ratings: Ratings | None = None  # format ratings only, which needs it
    language: Language | None = None  # of all rows; where it is missing, each row names its own, or there is only one


class FileConversations(Section):
    """A JSONL file in data/sources/."""

    source: Literal["file"]
    id: Annotated[Id, AfterValidator(_check_relative)]
    format: Format
    replies: Replies | None = None  # OpenAssistant's formats only, which need it
    columns: Columns | None = None  # format columns only, which needs it
    sides: Sides | None = None  # format preferences only, where its fields have other names
    ratings: Ratings | None = None  # format ratings only, which needs it
    language: Language | None = None  # as for the hub


class HubTexts(Hub):
    """Texts to pre-train on: rows of a split of a data set on the hub, each with a field `text`."""

    subset: str | None = None  # as for conversations
    split: str
    share: Annotated[float, Field(gt=0, le=1)] = 1.0  # drawn by ids: a smaller one is part of a larger
    language: Language | None = None  # as for conversations


class FileTexts(Section):
    """Texts to pre-train on: a JSONL file in data/sources/, each row with a field `text`."""

    source: Literal["file"]
    id: Annotated[Id, AfterValidator(_check_relative)]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0  # as for the hub
    language: Language | None = None  # as for conversations


Texts = Annotated[HubTexts | FileTexts, Field(discriminator="source")]
Conversations = Annotated[PackageConversations | HubConversations | FileConversations, Field(discriminator="source")]


class Raw(Section):
    """Where conversations come from, and texts where a step pre-trains on them."""

    sources: Annotated[list[Conversations], Field(min_length=1)]
    texts: list[Texts] = []


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
    """A model and sampling parameters that answer threads."""

    model: Name  # of section `models`
    engine: Engine
    system_prompt: bool  # put prompts/system_prompt before the conversation
    train_share: Annotated[float, Field(gt=0, le=1)]  # of the training threads; held-out ones are all answered
    n: Annotated[int, Field(ge=1)]  # answers to each thread
    temperature: Annotated[float, Field(ge=0)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_tokens: Annotated[int, Field(ge=1)]


class RubricJudge(Section):
    """A model that is given a rubric and answers with a number; the score is the expectation of that number."""

    kind: Literal["rubric"]
    model: Name  # of section `models`
    engine: Engine
    min_label_mass: Share  # probability that the five scores must have together, else the verdict is `unparsed`


class AdditiveJudge(Section):
    """A model that reviews an answer by adding up to five points; the score is the mean of several such votes.

    (Self-rewarding language models, Yuan et al. 2024.)
    """

    kind: Literal["additive"]
    model: Name  # of section `models`
    engine: Engine
    votes: Annotated[int, Field(ge=1)]  # reviews of each answer
    temperature: Annotated[float, Field(gt=0)]  # of a review: at 0 all votes would be equal
    max_tokens: Annotated[int, Field(ge=1)]  # of a review
    min_label_mass: Share  # probability that the six scores must have together, else the verdict is `unparsed`


class GradesJudge(Section):
    """A model that grades an answer from 1 to 5 on each criterion, as JSON; the score is their weighted mean."""

    kind: Literal["grades"]
    model: Name  # of section `models`
    engine: Engine
    # Keys of the JSON object, in English, such as correctness, and the weight of each.
    criteria: Annotated[dict[Name, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    votes: Annotated[int, Field(ge=1)] = 1  # JSON objects; each has the criteria in another order, at most so many
    min_label_mass: Share  # of the five grades of any criterion, as for a rubric


class PairwiseJudge(Section):
    """A model that compares each two answers to a thread in both orders; the score is an answer's share of wins."""

    kind: Literal["pairwise"]
    model: Name  # of section `models`
    engine: Engine
    min_label_mass: Share  # probability that 1, 2 and 0 must have together, else both answers are unparsed


class PairRMJudge(Section):
    """PairRM (Jiang et al. 2023): an encoder that compares each two answers to an English question in both orders."""

    kind: Literal["pairrm"]
    model: Name  # of section `models`, of the form of llm-blender/PairRM-hf


class RewardJudge(Section):
    """A sequence-classification model with one label: the score is its logit on the conversation with the answer."""

    kind: Literal["reward"]
    model: Name  # of section `models`


GenerativeJudge = RubricJudge | AdditiveJudge | GradesJudge | PairwiseJudge  # models that generate, by an engine
Judge = Annotated[GenerativeJudge | PairRMJudge | RewardJudge, Field(discriminator="kind")]


class Calibrated(Section):
    """What a judge must reach before it may rank answers for pairs, where people have judged answers as well."""

    # Lower bound of the 95 % interval of its agreement with people, in each language; chance is 0.5.
    min_agreement: Share


# Named by a rule instead of a judge:
ASSUMPTION = "assumption"  # the chosen side is taken to be better
PEOPLE = "people"  # ranks the answers that a source brings by its scores, and no others
CHRF = "chrf"  # ranks answers by their chrF++ to the expert's, 0 to 100
WITHOUT_MODEL = (ASSUMPTION, PEOPLE, CHRF)
# The judge of section scored that agrees best with people; the first by name, where they have judged nothing.
CALIBRATED = "calibrated"


class Rule(Section):
    """Which answer is chosen, which is rejected, and the judge that ranks them: `assumption`, `people`, `chrf`,
    `calibrated`, or one of section `scored`."""

    name: Name
    # reference; best or worst of all generators; a generator (its best, or its worst); by assumption also rated_best or
    # rated_worst, of the answers that a source brings
    chosen: Name
    rejected: Name
    judge: Name
    # By how much the judge must score the chosen side over the other, in its unit; 0 by assumption and calibrated.
    # None: the judge finds the best or the worst, and the other side is taken to be better, or worse, whatever it says.
    min_margin: Annotated[float, Field(ge=0)] | None


class Pairs(Section):
    """How pairs are made."""

    rules: Annotated[list[Rule], Field(min_length=1)]
    max_cut_rejected: Share  # share of a rule's rejected sides cut at max_tokens, above which no pairs are written
    min_words: Annotated[int, Field(ge=1)] = 1  # of either side
    max_length_ratio: Annotated[float, Field(ge=1)] | None = None  # words of the longer side to those of the shorter
    max_similarity: Annotated[float, Field(ge=0, le=100)] | None = None  # chrF++ of one side to the other
    # Share of a rule's pairs in split train whose chosen side has more words, above which no pairs are written; chance
    # is 0.5, and DPO learns length from pairs.
    max_longer_chosen: Share | None = None
    # To compare rules; for split train only:
    equal_threads: bool = False  # only threads of which every rule makes a pair
    learned: list[Name] | None = None  # the rules whose pairs are written; None for all
    per_thread: Annotated[int, Field(ge=1)] | None = None  # pairs of a thread that are written; drawn by their ids


class LowRank(Section):
    """LoRA (Hu et al. 2021): low-rank matrices beside linear layers, the only weights that are trained."""

    kind: Literal["lora", "qlora"]  # qlora: beside layers quantised to nf4 (Dettmers et al. 2023), to save memory
    rank: Annotated[int, Field(ge=1)]
    alpha: Annotated[float, Field(gt=0)]
    dropout: Share
    targets: Annotated[list[str] | Literal["all-linear"], BeforeValidator(_check_targets)]  # names of layers
    rslora: bool  # scale by alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski 2023)
    dora: bool  # train the length of each column of weights, too (Liu et al. 2024)


class AllWeights(Section):
    """All weights are trained, in float32."""

    kind: Literal["full"]


class Health(Section):
    """Limits on answers to the first held-out prompts during training; it stops where one is passed."""

    prompts: Annotated[int, Field(ge=0)]  # how many; 0 for none
    tokens: Annotated[int, Field(ge=1)]  # of an answer, at most
    min_right_language: Share  # share of answers in the language, where the start had more
    max_repetition: Share  # share of word trigrams that occurred before in the answer, where the start had less
    min_length: Share  # words of the answers, divided by those of the experts' answers cut likewise


class PreferenceHealth(Health):
    """A limit on held-out pairs as well."""

    max_chosen_drop: Annotated[float, Field(gt=0)]  # nats a token that held-out chosen sides may become less likely


class PairHealth(PreferenceHealth):
    """For methods that compare the two sides of a pair, which KTO does not: a limit on over-fit."""

    # Reward accuracy of training less that of the held-out pairs, of which the upper end of the 95 % interval is taken.
    # Training's is measured before each update, so that it shows what was learned by heart from the second epoch on.
    max_accuracy_gap: Share


class Training(Section):
    """What all training steps have."""

    start: Annotated[Name, Field(alias="from")]  # a fetched model, or the step before
    seed: Annotated[int, Field(ge=0, lt=2**32)]  # of the weights to start from, and of the order of the rows
    weights: Annotated[LowRank | AllWeights, Field(discriminator="kind")]
    learning_rate: Annotated[float, Field(gt=0)]
    scheduler: Literal["linear", "cosine", "constant"]
    warmup: Share  # share of all updates
    epochs: Annotated[float, Field(gt=0)]
    batch: Annotated[int, Field(ge=1)]  # rows at once
    accumulation: Annotated[int, Field(ge=1)]  # batches of an update
    max_length: Annotated[int, Field(ge=2)]  # tokens of a row
    evaluations: Annotated[int, Field(ge=1)]  # times that validation is measured during training
    checkpoint: Annotated[int, Field(ge=1)]  # updates from one checkpoint to the next


class CPT(Training):
    """Continual pre-training on text, which is cut into rows of `max_length` tokens."""

    method: Literal["cpt"]
    data: Literal["texts"]


class SFT(Training):
    """Supervised fine-tuning: likelihood of the experts' answers, whole conversations packed into rows."""

    method: Literal["sft"]
    data: Literal["threads"]
    max_left_out: Share  # share of conversations longer than max_length, above which training does not start
    health: Health


class Preference(Training):
    """What all methods on pairs have."""

    data: Literal["pairs"]
    rules: Annotated[list[Name], Field(min_length=1)] | None = None  # of pairs, whose pairs it learns; None for all
    max_left_out: Share  # share of pairs longer than max_length, above which training does not start
    beta: Annotated[float, Field(gt=0)]
    health: PreferenceHealth


Loss = Literal["sigmoid", "ipo", "hinge", "robust", "apo_zero", "sigmoid_norm", "sft"]


class DPO(Preference):
    """Direct preference optimisation (Rafailov et al. 2023)."""

    method: Literal["dpo"]
    health: PairHealth
    # Weight of each loss; sft is the negative log-likelihood of the chosen side (RPO, Pang et al. 2024), and
    # sigmoid_norm the loss of DPO with log-probabilities per token.
    losses: Annotated[dict[Loss, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]  # of `robust`: share of pairs with exchanged sides


class KTO(Preference):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024): each side by itself is good or bad."""

    method: Literal["kto"]
    batch: Annotated[int, Field(ge=4)]  # the answers of a batch, of two prompts at least, estimate the divergence
    desirable_weight: Annotated[float, Field(gt=0)]
    undesirable_weight: Annotated[float, Field(gt=0)]


class ORPO(Preference):
    """Odds ratio preference optimisation (Hong et al. 2024): likelihood of the chosen side and odds, no reference."""

    method: Literal["orpo"]
    health: PairHealth


class SimPO(Preference):
    """Simple preference optimisation (Meng et al. 2024): log-probabilities per token with a margin, no reference."""

    method: Literal["simpo"]
    health: PairHealth
    gamma: Annotated[float, Field(ge=0)]  # the margin


Step = Annotated[CPT | SFT | DPO | KTO | ORPO | SimPO, Field(discriminator="method")]


class Merged(Section):
    """How merged models are stored, and how far one may be from the model and the adapter that it is made of."""

    dtype: Dtype
    max_difference: Annotated[float, Field(gt=0)]  # nats, of any token's log-probability, computed in float32
    max_served_difference: Annotated[float, Field(gt=0)]  # nats, the mean, computed in the model's own dtype


class Level(Section):
    """A model quantised with bitsandbytes."""

    model: Name  # a fetched model or a step
    format: Literal["nf4", "int8"]


class Column(Section):
    """A column of the report: a model with or without a system prompt."""

    model: Name  # a fetched model, a step or a level
    engine: LocalEngine
    system_prompt: bool  # put prompts/system_prompt before every conversation


Suite = Literal["benchmark", "preference", "language", "perplexity", "translation"]


class Metrics(Section):
    """What is measured, on which split, and how long an answer may be, in tokens."""

    split: Literal["validation", "test"]  # choices are made on validation; the report for others is made once, on test
    suites: Annotated[list[Suite], Field(min_length=1)]
    models: Annotated[dict[Name, Column], Field(min_length=1)]
    headline: Name  # the column that the report is about
    baselines: Annotated[list[Name], Field(min_length=1)]  # columns that all others are compared with
    reference_model: Name  # whose log-probabilities DPO's implicit rewards are relative to
    answer_tokens: Annotated[int, Field(ge=1)]
    translation_tokens: Annotated[int, Field(ge=1)]


class WinRate(Section):
    """Whose answers are the opponents of all columns', and the judge that compares them (kind pairwise).

    It has no number of runs: the judge says by log-probabilities which answer is better, and the sample store keeps it.
    """

    opponent: Name  # a column of metrics.models, or a generator, whose first answers are taken
    model: Name  # of section `models`: the judge
    engine: Engine
    min_label_mass: Share  # probability that 1, 2 and 0 must have together, else the comparison is unparsed


class Rounds(Section):
    """What `make rounds` does between its rounds, each of which is one run of the whole chain."""

    prompts: Annotated[int, Field(ge=1)]  # new ones that the model is asked for in each round
    judge: Name  # of section `scored`: the model judges itself, so its model is the one that a round starts from
    max_drift: Annotated[float, Field(ge=0)]  # how much higher than at first it may grade the same answers, in points


class Params(Section):
    """The whole of params.yaml."""

    languages: Annotated[list[Language], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    raw: Raw
    filtered: Filtered
    threads: Threads
    generated: Annotated[dict[Name, Generator], Field(min_length=1)]
    scored: Annotated[dict[Name, Judge], Field(min_length=1)]
    calibrated: Calibrated
    pairs: Pairs
    adapter: Annotated[dict[Name, Step], Field(min_length=1)]
    merged: Merged
    quantized: dict[Name, Level]
    metrics: Metrics
    win_rate: dict[Name, WinRate]
    rounds: Rounds | None = None  # `make rounds` needs it


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
        raise BadInput(f"{place}: not YAML ({problem or ' '.join(str(error).split())}); fix it") from error
    except ValidationError as error:
        wrong = [_explain(e) for e in error.errors()]
    except (ValueError, RecursionError) as error:  # a date that is none, a number too long, brackets without end
        raise BadInput(f"{path}: a value cannot be read ({' '.join(str(error).split())}); fix it") from error
    else:
        from mothertongue.references import find_problems  # which knows the classes above

        if not (wrong := find_problems(params)):
            return params
    raise describe_problems(path, wrong)


def describe_problems(path: Path, problems: Sequence["Problem"]) -> BadInput:
    """The exception for problems in a file of parameters, each on a line with its place."""
    tree = YAML(typ="rt").load(path)
    return BadInput("\n".join(f"{path}:{_locate(tree, where)}: {what}" for where, what in problems))


T = TypeVar("T")


def get_entry(section: str, entries: Mapping[str, T], name: str) -> T:
    """The entry of a section that a stage got on its command line. Raises BadInput where there is none."""
    if name not in entries:
        raise BadInput(f"params.yaml: {section}: no {name!r}; take one of {', '.join(sorted(entries))}")
    return entries[name]


Problem = tuple[tuple[str | int, ...], str]  # where, as in ("pairs", "rules", 0, "name"), and what is wrong


def _explain(error: Any) -> Problem:
    where = tuple(part for part in error["loc"] if part != "[key]")
    found = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return where, "missing; add it"
        case "extra_forbidden" if where[0] == "adapter" and len(where) > 3:  # with the tags of method and of weights
            what = f"kind {where[4]}" if len(where) == 6 else f"method {where[2]}"
            return where, f"{what} has no such parameter; remove it or fix its name"
        case "extra_forbidden":
            return where, "unknown parameter; remove it or fix its name"
        case "union_tag_not_found":
            return (*where, found["discriminator"].strip("'")), "missing; add it"
        case "union_tag_invalid":
            which = found["discriminator"].strip("'")
            return (*where, which), f"input should be one of {found['expected_tags']}, got {found['tag']!r}"
        case "dict_type" if error["input"] is None:
            return where, "is empty; add an entry" + (
                ", or write {}" if where in (("quantized",), ("win_rate",)) else ""
            )
        case "variable":
            return where, str(error["msg"])  # without the value, which may be the key itself
        case "too_short" if found["min_length"] == 1:
            return where, "is empty; add an entry"
        case "model_type" | "model_attributes_type" | "dict_type":
            return where, f"input should be a mapping of names to values, got {error['input']!r}"
        case _:
            message = str(error["msg"])
            return where, f"{message[0].lower()}{message[1:]}, got {error['input']!r}"


def _locate(tree: Any, where: tuple[str | int, ...]) -> str:
    """Line and dotted name, `12: adapter.beta`; for a missing name, the line of its section."""
    names: list[str] = []
    line, node = 1, tree
    for number, part in enumerate(where, start=1):
        try:
            here = node.lc.item(part) if isinstance(part, int) else node.lc.key(part)
            line, node = here[0] + 1, node[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            if number < len(where):
                continue  # the tag of a union, which is not in the file
        names.append(str(part))
    return f"{line}: {'.'.join(names) or 'whole file'}"
