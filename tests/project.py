"""What the project's own files say of each other: imports, templates and engines that a stage reaches."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/mothertongue"
# Modules that change no byte of an output: parameters and their checks, errors, reading and writing, the terminal, and
# the choice of a judge's module. What they import is not followed. A stage tracks values as params, not these files.
PLUMBING = {
    PACKAGE / name
    for name in ("__init__.py", "params.py", "references.py", "errors.py", "files.py", "rows.py", "console.py")
} | {PACKAGE / "judging/__init__.py", ROOT / "stages/__init__.py"}
# Modules that are folders, and are deps as folders.
FOLDERS = {PACKAGE / "sampling", PACKAGE / "suites", PACKAGE / "training"}


def imports(path: Path) -> set[Path]:
    """The project's own files that a file imports, wherever in it, without plumbing."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "mothertongue":
                place = PACKAGE.joinpath(*parts[1:])
                found |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    return found - PLUMBING


def templates(path: Path) -> set[Path]:
    """The folders of the templates that a file names in calls of prompts.render."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "prompts.render":
            found.add(PACKAGE / "prompts" / ast.literal_eval(node.args[0]).split("/")[0])
    return found


def reached(script: Path, *more: Path) -> set[Path]:
    """The files of the project that a script reaches, itself and `more` included, without plumbing."""
    todo, done = {script, *more}, set()
    while todo:
        path = todo.pop()
        done.add(path)
        todo |= imports(path) - done
    return done


def deps(script: Path, *more: Path) -> set[str]:
    """The deps on the project's own files that a stage should have, relative to the project."""
    files = reached(script, *more)
    found = set().union(*map(templates, files))
    for path in files:
        found.add(next((folder for folder in FOLDERS if path.is_relative_to(folder)), path))
    return {path.relative_to(ROOT).as_posix() for path in found}


# Packages that carry text and files, and change no byte of an output.
OTHER_PACKAGES = {
    "click",
    "dvc",
    "huggingface_hub",
    "jinja2",
    "openai",
    "platformdirs",
    "pydantic",
    "pydantic_core",
    "ruamel",
    "tqdm",
}
# Packages that compute in a module and that it does not import itself.
BESIDE = {
    "chat.py": {"tokenizers"},
    "models.py": {"gguf", "tokenizers"},
    "sampling/transformers.py": {"bitsandbytes"},
    "quantization.py": {"bitsandbytes"},
    "suites/benchmark.py": {"datasets"},
    "training/__init__.py": {"accelerate", "bitsandbytes"},
    "weights.py": {"safetensors"},
}


def engines(script: Path, *more: Path) -> set[str]:
    """The packages that compute in a script, as requirements/engines.json names them."""
    found: set[str] = set()
    for path in reached(script, *more):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
        if path.is_relative_to(PACKAGE):
            found |= BESIDE.get(path.relative_to(PACKAGE).as_posix(), set())
    ours = {"mothertongue", "stages", *OTHER_PACKAGES, *sys.stdlib_module_names}
    return {name.replace("_", "-") for name in found - ours}
