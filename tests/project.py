"""What the project's own files say of each other, read from their source."""

import ast
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
