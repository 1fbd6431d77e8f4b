"""Content keys: what a piece of evidence depends on, as hashes. Evidence whose key is not today's is stale.

Comments and layout do not count, in C as in Python: a reworded comment costs no GPU time and ages no evidence.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import tokenize
from functools import cache
from pathlib import Path
from typing import Any

from evosdpa.variants import Variant, includes

PACKAGE = Path(__file__).parent

_C_TOKENS = re.compile(
    r"""R"(?P<delimiter>[^()\s\\]{0,16})\(.*?\)(?P=delimiter)"  # raw string
      | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'               # string, character
      | //[^\n]* | /\*.*?\*/                                    # comments
    """,
    re.DOTALL | re.VERBOSE,
)


_MODULE = re.compile(rf"{PACKAGE.name}(\.\w+)+")


def digest(data: str | bytes) -> str:
    """SHA-256, the first 16 hexadecimal digits: enough to tell versions apart, short enough to read."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:16]


def digest_file(path: Path | str) -> str:
    """Digest of a file's bytes, or `missing`."""
    try:
        return digest(Path(path).read_bytes())
    except OSError:
        return "missing"


def combine(parts: dict[str, str]) -> str:
    """One key from its parts."""
    return digest(json.dumps(parts, sort_keys=True))


def strip_c(text: str) -> str:
    """C or CUDA source without comments, trailing blanks and empty lines."""
    bare = _C_TOKENS.sub(lambda match: " " if match.group().startswith(("//", "/*")) else match.group(), text)
    return "\n".join(line.rstrip() for line in bare.splitlines() if line.strip())


def strip_python(text: str) -> str:
    """Python source without comments, docstrings, trailing blanks and empty lines."""
    lines = text.splitlines(keepends=True)
    cuts: list[tuple[int, int, int, int]] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            cuts.append((*token.start, *token.end))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            for child in node.body:  # docstrings, and the strings under fields that serve as theirs
                if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) and isinstance(child.value.value, str):
                    value = child.value
                    cuts.append((value.lineno, _column(lines, value.lineno, value.col_offset),
                                 value.end_lineno, _column(lines, value.end_lineno, value.end_col_offset)))
    for first, left, last, right in sorted(cuts, reverse=True):
        kept = lines[first - 1][:left] + lines[last - 1][right:]
        lines[first - 1:last] = [kept] + ["\n"] * (last - first)
    return "\n".join(line.rstrip() for line in "".join(lines).splitlines() if line.strip())


@cache
def stripped_python(path: Path) -> str:
    """strip_python of a file."""
    return strip_python(path.read_text())


def _column(lines: list[str], line: int, byte_offset: int) -> int:
    """Characters before a position that `ast` gives in UTF-8 bytes."""
    return len(lines[line - 1].encode()[:byte_offset].decode())


@cache
def imports(module: Path) -> tuple[Path, ...]:
    """Modules of this package that a Python file imports, directly or not, itself left out; sorted."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        for node in ast.walk(ast.parse(current.read_text(), filename=str(current))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _MODULE.fullmatch(node.value):
                names = [node.value]  # imported by name, because it may be missing where it cannot run
            for name in names:
                if name.split(".")[0] != PACKAGE.name:
                    continue
                path = PACKAGE.joinpath(*name.split(".")[1:])
                for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                    if candidate.is_file() and candidate not in found and candidate != module:
                        found.add(candidate)
                        waiting.append(candidate)
    return tuple(sorted(found))


@cache
def harness(worker: str, *kernels: Path) -> str:
    """Digest of the code that decides a step's numbers: harness/<worker>.py, what it imports from harness/, problem.py, and
    kernels of the harness itself."""
    module = PACKAGE / "harness" / f"{worker}.py"
    files = [module] + [path for path in imports(module) if path.parent == module.parent or path.name == "problem.py"]
    texts = [f"{path.name}\n{stripped_python(path)}" for path in sorted(files)]
    return digest("\n".join([*texts, *([sources(there)] if (there := [path for path in kernels if path.is_file()]) else [])]))


@cache
def modules(*names: str) -> str:
    """Digest of modules of the package that judge what the harness reports; comments apart."""
    return digest("\n".join(f"{name}\n{stripped_python(PACKAGE / f'{name}.py')}" for name in names))


def protocol(settings: Any) -> str:
    """Digest of the settings that decide a step's numbers."""
    return digest(json.dumps(settings, sort_keys=True))


@cache
def _stripped(path: Path) -> str:
    return strip_c(path.read_text())


def sources(paths: list[Path]) -> str:
    """Digest of C or CUDA sources, comments apart, in the given order."""
    return digest("\n".join(f"{path.name}\n{_stripped(path)}" for path in paths))


def build_parts(variant: Variant, flags: list[str], compiler: str) -> dict[str, str]:
    """What a binary depends on."""
    return {
        "source": digest(_stripped(variant.source)),
        "headers": sources(list(includes(variant.source))),
        "levers": ",".join("=".join(pair) for pair in variant.levers),
        "flags": " ".join(flags),
        "compiler": compiler,
    }


def changed(recorded: dict[str, str], today: dict[str, str], ignore: tuple[str, ...] = ()) -> list[str]:
    """The parts in which two keys differ, in today's order: what made the evidence stale."""
    names = [*today, *(name for name in recorded if name not in today)]
    return [name for name in names if name not in ignore and recorded.get(name) != today.get(name)]
