"""What the project's own files say of each other, read from their source."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/mothertongue"


def imports(path: Path) -> set[Path]:
    """The files of this project that a file imports, at any depth of its code."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] == "mothertongue":
                place = PACKAGE.joinpath(*name.split(".")[1:])
                found |= {p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()}
    return found


def prompt_files(path: Path) -> set[Path]:
    """The templates of every use that a file names in a call of prompts.text."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "prompts.text":
            use = ast.literal_eval(node.args[0])
            found |= set((PACKAGE / "prompts").glob(f"{use}.txt")) | set((PACKAGE / "prompts").glob(f"{use}.*.txt"))
    return found


def reached(script: Path) -> set[str]:
    """All project files that a script reaches, itself and its templates too, relative to the project."""
    todo, done = {script}, set()
    while todo:
        path = todo.pop()
        done.add(path)
        todo |= imports(path) - done
    for path in list(done):
        done |= prompt_files(path)
    return {path.relative_to(ROOT).as_posix() for path in done}


# Packages that carry text and files, and change no byte of what is made.
PLUMBING = {"click", "huggingface_hub", "jinja2", "platformdirs", "pydantic", "pydantic_core", "ruamel", "tqdm"}
# Engines that another one loads: no import names them.
BESIDE = {
    "benchmark.py": {"accelerate", "datasets"},
    "chat.py": {"tokenizers"},
    "models.py": {"gguf", "tokenizers"},
    "sampling/transformers.py": {"bitsandbytes"},
    "training.py": {"accelerate"},
    "weights.py": {"bitsandbytes", "safetensors"},
}


def engines(script: Path) -> set[str]:
    """The packages that compute in a script, as requirements/engines.json names them."""
    found: set[str] = set()
    for path in map(ROOT.joinpath, reached(script)):
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
        if path.is_relative_to(PACKAGE):
            found |= BESIDE.get(path.relative_to(PACKAGE).as_posix(), set())
    ours = {"mothertongue", "stages", *PLUMBING, *sys.stdlib_module_names}
    return {name.replace("_", "-") for name in found - ours}
