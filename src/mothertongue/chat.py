"""Conversations as token ids, rendered in one way for every engine and for training."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from mothertongue.errors import BadInput
from mothertongue.files import read_json_object
from mothertongue.records import Message

# Arguments of templates: those of reasoning models have one for a chain of thought, which is not measured here.
PLAIN = {"enable_thinking": False}
SLOW = ("*.model", "*.tiktoken", "vocab.*")  # what tokenizers without tokenizer.json are made from
# Some templates write the current date, which would change every prompt daily. This is the default in Llama's template.
DAY = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"


class Chat:
    """A model's tokenizer and chat template; `eos_token_ids` are the token ids that end a turn.

    `digest`, 16 hex digits, identifies all that rendering and decoding depend on: the template, the vocabulary, the
    special tokens and the ends of turns.
    """

    def __init__(self, model: Path) -> None:
        self.model = model
        self.tokenizer: Any = _tokenizer(model)
        template = _template(model, self.tokenizer.chat_template)
        self.tokenizer.chat_template = DAY + template if "strftime_now" in template else template
        self.eos_token_ids = _find_eos_token_ids(model, self.tokenizer.eos_token_id)
        # The tokenizer's own list has only those with a role; Llama 3's headers, for example, are not in it.
        added = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        special = sorted(added.union(self.tokenizer.all_special_tokens), key=lambda token: (-len(token), token))
        self._control = match_tokens(special)
        # tokenizer_config.json also names tokens: its eos_token ends turns, whatever is in tokenizer.json.
        vocabulary = self.tokenizer.backend_tokenizer.to_str()
        parts = [
            template,
            vocabulary,
            special,
            self.eos_token_ids,
            {k: str(v) for k, v in self.tokenizer.special_tokens_map.items()},
        ]
        self.digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def escape_control_tokens(self, text: str) -> str:
        """Text without control tokens of this tokenizer: `<|im_end|>` becomes `< |im_end|>`."""
        return escape_tokens(self._control, text)

    def escape_messages(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Messages as chat templates and TRL take them, with control tokens escaped."""
        return [{"role": m.role, "content": self.escape_control_tokens(m.content)} for m in messages]

    def encode_prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids up to the start of the assistant's answer."""
        return self._ids(self._text(messages))

    def encode_answer(
        self, messages: Sequence[Message], answer: str, *, ended: bool = True
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of a prompt, and of the answer up to its eos token; without one where the answer was cut.

        What a template writes after that, such as a line break, is left out: models do not generate it, and it would
        count as one more token of probability near 1.
        """
        prompt, rest = self.encode_example(messages, answer, ended=ended)
        last = max((place for place, token in enumerate(rest) if token in self.eos_token_ids), default=len(rest))
        return prompt, rest[: last + 1]

    def encode_example(
        self, messages: Sequence[Message], answer: str, *, ended: bool = True
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of a prompt, and of all that the template writes from the answer on, which is trained on.

        Where the template renders a conversation with an answer differently from its prompt, the answer starts where
        the two diverge, as in TRL. An answer that was cut (`ended` is false) stops with its last character, without
        what the template writes after an answer.
        """
        prompt = self.encode_prompt(messages)
        whole = self._ids(self._text(messages, answer) if ended else self._unended(messages, answer))
        shared = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
        return prompt[:shared], whole[shared:]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids without eos and control tokens."""
        ids = ids[:-1] if ids and ids[-1] in self.eos_token_ids else ids
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _unended(self, messages: Sequence[Message], answer: str) -> str:
        """The text up to the answer's last character, without what the template writes after it.

        The text is cut and not the token ids, because a tokenizer may encode an answer's last character and what
        follows as one token. Half a character, where the last token ended inside one (U+FFFD), is left out.
        """
        text, one, other = (self._text(messages, text) for text in (answer.rstrip("\ufffd"), "a", "b"))
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(reversed(one), reversed(other), strict=False))
        after = one[len(one) - len(list(alike)) :]
        if not text.endswith(after):
            raise BadInput(
                f"{self.model}: what the chat template writes after an answer depends on the answer, so that a cut one"
                " cannot be rendered without an end; take another template"
            )
        return text.removesuffix(after)

    def _text(self, messages: Sequence[Message], answer: str | None = None) -> str:
        """What the template writes: up to the start of the answer, or with an answer and its end."""
        turns = [*messages, *([] if answer is None else [Message(role="assistant", content=answer)])]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    self.escape_messages(turns), add_generation_prompt=answer is None, tokenize=False, **PLAIN
                )
            )
        except Exception as error:  # a template is a program and can raise any exception
            roles = ", ".join(message.role for message in turns)
            raise BadInput(
                f"{self.model}: the chat template refuses turns of {roles} ({error}); set system_prompt to false"
                " where it takes no system turn, and correct the conversations where it requires alternating turns"
            ) from error


def match_tokens(tokens: Iterable[str]) -> re.Pattern[str]:
    """A pattern of tokens; where one begins with another, the longer one is found."""
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))


def escape_tokens(control: re.Pattern[str], text: str) -> str:
    """Text without the tokens of a pattern, which get a space after their first character."""
    return control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _tokenizer(model: Path) -> Any:
    """The model's fast tokenizer. Raises BadInput where a file of the folder is broken, or there is only a slow one."""
    from transformers import AutoTokenizer

    slow = BadInput(
        f"{model}: only a slow tokenizer, without tokenizer.json; write one where its package is installed:"
        " AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
    )
    if not (model / "tokenizer.json").exists() and any(any(model.glob(name)) for name in SLOW):
        raise slow
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if name in ("config.json", "tokenizer.json") or (model / name).exists():
            read_json_object(model / name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except Exception as error:  # tokenizers raises this class for JSON that is not a tokenizer
        raise BadInput(
            f"{model}: the tokenizer cannot be read ({' '.join(str(error).split())}); take the model's own files again"
        ) from error
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise slow
    return tokenizer


def _template(model: Path, found: str | dict[str, str] | None) -> str:
    """The chat template; of several named ones that without tools or documents."""
    if isinstance(found, dict):
        if "default" not in found:
            raise BadInput(
                f"{model}: the tokenizer has chat templates ({', '.join(sorted(found))}) and none named default; write"
                " the one to use to chat_template.jinja"
            )
        found = found["default"]
    if not found or not isinstance(found, str):
        raise BadInput(f"{model}: the tokenizer has no chat template; take an instruction-tuned model")
    return found


def _find_eos_token_ids(model: Path, eos: int | None) -> tuple[int, ...]:
    """The tokenizer's eos token and those of the generation settings: Gemma ends turns with another one than texts."""
    found = {eos}
    for path in (model / "generation_config.json", model / "config.json"):
        settings = read_json_object(path) if path.exists() else {}
        if (named := settings.get("eos_token_id")) is not None:
            tokens = named if isinstance(named, list) else [named]
            if not all(type(token) is int for token in tokens):
                raise BadInput(f"{path}: eos_token_id: {named!r} is not a token id; correct it")
            found |= set(tokens)
            break
    if not (ends := sorted(token for token in found if token is not None)):
        raise BadInput(f"{model}: neither tokenizer nor generation_config.json names an end token; add eos_token_id")
    return tuple(ends)
