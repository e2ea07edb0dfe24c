"""A toy model in the hub's format, conversations for it, and copies of the project that run on both."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML

from mothertongue.origin import Origin, write_origin
from mothertongue.params import Dtype

ROOT = Path(__file__).parent.parent

THINGS = (
    ("el gato negro", "la cocina", "leche tibia"),
    ("la abuela", "el jardín", "té con limón"),
    ("mi hermano mayor", "la oficina", "café sin azúcar"),
    ("el perro de la vecina", "el parque", "agua fresca"),
    ("la profesora de música", "el teatro", "zumo de naranja"),
    ("el panadero", "la plaza", "chocolate caliente"),
    ("tu amiga Lucía", "la biblioteca", "agua con gas"),
    ("el médico del pueblo", "el hospital", "una infusión"),
    ("la niña pequeña", "la escuela", "leche con miel"),
    ("el pescador", "el puerto", "vino tinto"),
    ("la pintora", "su taller", "té verde"),
    ("el jardinero", "el bosque", "limonada"),
    ("mi tía Carmen", "la montaña", "caldo de verduras"),
    ("el cartero", "la calle mayor", "cerveza fría"),
    ("la bailarina", "la playa", "zumo de manzana"),
)
TURNS = (
    ("¿Dónde está {who}?", "Creo que hoy {who} está en {where}, como casi todos los días."),
    ("¿Qué bebe {who} por la mañana?", "Por la mañana {who} siempre bebe {what} y después sale a caminar."),
    ("¿Conoces bien a {who}?", "Sí, conozco bien a {who}; nos vemos a menudo en {where}."),
    ("Háblame de {who}, por favor.", "Con mucho gusto: {who} vive cerca de {where} y nunca rechaza {what}."),
)
ENGLISH = (
    "You are a friendly assistant who answers every question in one sentence.",
    "The old man and the little girl are walking to the market in the morning.",
    "I would like a cup of tea with milk, and something sweet to eat with it.",
)
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def conversations(things: tuple[tuple[str, str, str], ...] = THINGS) -> list[list[dict[str, str]]]:
    """Four short conversations per thing; the last of the four has a second exchange."""
    found = []
    for who, where, what in things:
        turns = [[text.format(who=who, where=where, what=what) for text in turn] for turn in TURNS]
        exchanges = [turns[0], turns[1], turns[2], turns[3] + turns[0]]
        found += [
            [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(exchange)]
            for exchange in exchanges
        ]
    return found


def write_conversations(path: Path, rows: list[list[dict[str, str]]]) -> None:
    """As JSONL of format `messages`."""
    lines = (json.dumps({"messages": row}, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def model(folder: Path, *, dtype: Dtype = "bfloat16", split_digits: bool = False) -> Path:
    """A Llama of 0.45 million seeded random weights with a ChatML tokenizer, the same bytes each time.

    With `split_digits` the tokenizer puts a space before a text, as some do, and so writes a digit in two tokens.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=split_digits)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    spanish = [message["content"] for row in conversations() for message in row]
    tokenizer.train_from_iterator([*spanish, *ENGLISH], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    fast.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,  # vLLM's CPU build has no kernel for small heads
        max_position_embeddings=2048,
        initializer_range=0.2,  # likely and unlikely tokens: the usual 0.02 would leave near ties everywhere
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(2026)
        weights = LlamaForCausalLM(config)
    with torch.no_grad():
        weights.lm_head.weight[2] *= 1.5  # so that some answers end by themselves
    weights.to(getattr(torch, dtype)).save_pretrained(folder)
    fast.save_pretrained(folder)
    write_origin(folder, Origin(source="folder", id="toy", revision=None, dtype=dtype))
    return folder


def write_params(path: Path, base: Path) -> None:
    """The committed params.yaml, made small enough for a toy."""
    yaml = YAML()
    values = yaml.load(ROOT / "params.yaml")
    values["models"]["base"] = {"source": "folder", "id": str(base), "dtype": values["models"]["base"]["dtype"]}
    values["raw"]["sources"] = [{"source": "file", "id": "toy.jsonl", "format": "messages"}]
    values["filtered"]["min_words"] = 1
    # From the base, so that another conversation, which changes all later steps, asks for its own answers only.
    common = {
        "model": "base",
        "engine": "vllm",
        "train_share": 1.0,
        "n": 1,
        "temperature": 0.7,
        "top_p": 1.0,
        "max_tokens": 8,
    }
    values["generated"] = {"plain": common | {"system_prompt": False}, "guided": common | {"system_prompt": True}}
    values["scored"]["rubric"]["min_label_mass"] = 0.0
    values["win_rate"] = {"base": {"opponent": "base", "model": "base", "engine": "vllm", "min_label_mass": 0.0}}
    values["pairs"] = {
        "rules": [
            {"name": "over_plain", "chosen": "reference", "rejected": "plain", "judge": "assumption", "min_margin": 0},
            {"name": "over_guided", "chosen": "reference", "rejected": "guided", "judge": "rubric", "min_margin": 0.1},
        ],
        "max_cut_rejected": 1.0,
    }
    # The toy's answers are random, whatever it learns.
    limits = {"prompts": 2, "tokens": 8, "min_right_language": 0.0, "max_repetition": 1.0, "min_length": 0.0}
    for step in values["adapter"].values():
        step["health"] |= limits
        step["checkpoint"] = 1
    values["metrics"] |= {"answer_tokens": 8, "translation_tokens": 8}
    yaml.dump(values, path)


@dataclass(frozen=True)
class Workspace:
    """A copy of the project with toy parameters, and its own git repository, DVC cache and sample store."""

    root: Path
    store: Path

    @classmethod
    def made(cls, folder: Path, base: Path) -> "Workspace":
        """Copy the files that git would commit, without dvc.lock: nothing has run here yet."""
        here = cls(folder / "project", folder / "store")
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        for name in listed.stdout.splitlines():
            if name != "dvc.lock" and (ROOT / name).is_file():
                (here.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, here.root / name)
        write_params(here.root / "params.yaml", base)
        write_conversations(here.root / "data/sources/toy.jsonl", conversations())
        for suite in (here.root / "data/suites").glob("*.jsonl"):
            rows = suite.read_text(encoding="utf-8").splitlines(keepends=True)
            suite.write_text("".join(rows[:12]), encoding="utf-8")
        here.run("git", "init", "-q")
        here.commit("the project")
        return here

    @property
    def env(self) -> dict[str, str]:
        """What the Makefile sets, and one thread: a toy needs no more, and two copies can run side by side."""
        return os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "src",
            "PYTHONHASHSEED": "0",
            "MOTHERTONGUE_STORE": str(self.store),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "DVC_NO_ANALYTICS": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_{what}": "toy@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

    def start(self, *command: str) -> "Running":
        """Begin a command in a process group of its own."""
        return Running(command, self)

    def run(self, *command: str) -> str:
        """What a command prints. Fails, with the end of it, where the command does."""
        return self.start(*command).ended()

    def stage(self, word: str, *arguments: str) -> "Running":
        """Begin a stage without DVC."""
        return self.start(sys.executable, "-m", f"stages.{word}", *arguments)

    def copied(self, folder: Path) -> "Workspace":
        """The same files, without git, DVC and the sample store."""
        ignored = shutil.ignore_patterns(".git", ".dvc")
        return Workspace(Path(shutil.copytree(self.root, folder / "project", ignore=ignored)), folder / "store")

    def duplicated(self, folder: Path) -> "Workspace":
        """A copy of all of it: git, DVC's cache and the sample store, too."""
        there = Workspace(folder / "project", folder / "store")
        shutil.copytree(self.root, there.root, symlinks=True)
        shutil.copytree(self.store, there.store)
        return there

    def commit(self, message: str) -> None:
        """Everything that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "-q", "-m", message)


class Running:
    """A command that was started, with its output in a file."""

    def __init__(self, command: tuple[str, ...], workspace: Workspace) -> None:
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            cwd=workspace.root,
            env=workspace.env,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill(self) -> None:
        """SIGKILL to the command and all that it started. Fails where it has ended before."""
        assert self.process.poll() is None, f"ended before it could be killed:\n{self._printed()[-3000:]}"
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def ended(self) -> str:
        """Wait for the end, and give what was printed."""
        code, printed = self._end()
        assert code == 0, f"{self.process.args} exited with an error:\n{printed[-3000:]}"
        return printed

    def failed(self) -> str:
        """Wait for an end with an error, and give what was printed."""
        code, printed = self._end()
        assert code != 0, f"{self.process.args} should have failed:\n{printed[-3000:]}"
        return printed

    def _end(self) -> tuple[int, str]:
        code, printed = self.process.wait(), self._printed()
        self.log.close()
        return code, printed

    def _printed(self) -> str:
        self.log.seek(0)
        return self.log.read()


@dataclass(frozen=True)
class Chain:
    """The whole chain, run in two copies of the project with stores of their own; `printed` is the output of DVC."""

    first: Workspace
    second: Workspace
    printed: str


@cache
def chain(folder: Path) -> Chain:
    """Run once for all tests that name the same folder; the two copies run side by side."""
    base = model(folder / "toy")
    copies = [Workspace.made(folder / name, base) for name in ("first", "second")]
    running = [copy.start("dvc", "repro") for copy in copies]
    printed = [each.ended() for each in running]
    for copy in copies:
        copy.commit("what dvc repro made")
    return Chain(*copies, printed[0])


def ran(printed: str) -> list[str]:
    """The stages that DVC ran, in order."""
    return re.findall(r"^Running stage '(.+)':$", printed, flags=re.MULTILINE)
