"""Variants: which there are, what their source says of itself, what a name with levers means, which headers count."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from evosdpa.harness.checks import Check

KERNELS = Path("kernels")
FLOORS = KERNELS / "floors"
PLANTED = KERNELS / "planted"
HARNESS = KERNELS / "harness"
INCLUDE = KERNELS / "include"
FILL_SHARED = HARNESS / "fill_shared.cu"
"""What verify runs before each launch on a GPU, so that shared memory holds a known pattern; no variant."""
SUFFIXES = (".cu", ".cpp")
GENERATED = ("results/*/evolve/sources", "results/recorded/*/evolve/sources")
"""Where sources lie that a generator wrote, as globs: an evolution's own children, which nobody has taken into kernels/ yet."""

STEM = (r"(?!(?:rival|rivals|all|record|check|compile|inspect|verify|sanitize|bench|profile|gap|report|selftest|planted|repeatability|summary|writeup"
        r"|evolve|propose|screen|finals|closing|select|neighbour|swept|sweep|operator|called)\b)[A-Za-z][A-Za-z0-9_]*")
"""A variant's stem: a C identifier, so that it is also a safe path and target; names of rules are taken."""
LEVERS = r"[A-Z][A-Z0-9_]*=[A-Za-z0-9_]+"
NAME = rf"{STEM}(?:@{LEVERS}(?:,{LEVERS})*)?"
"""A variant's name: the stem, then @LEVER=value pairs sorted by lever."""

HEADER_KEYS = ("title", "parent", "idea", "expects", "levers")
PLANTED_KEYS = ("title", "idea", "rejected_by", "where", "runs_on")
DEVICE_KINDS = ("cpu", "gpu")

HEADER_LIMIT = 8192
"""Characters of a block: libyaml overflows its stack on brackets nested some ten thousand deep."""

_HEADER = re.compile(r"/\*\s*evo-sdpa[ \t]*\n(.*?)\*/", re.DOTALL)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)


_DEFAULT = re.compile(r"^[ \t]*#[ \t]*ifndef[ \t]+(\w+)[ \t]*\n[ \t]*#[ \t]*define[ \t]+\1[ \t]+(\w+)", re.MULTILINE)


class VariantError(Exception):
    """A source, header block or name that cannot be used; one line with file and line where there is one."""


@dataclass(frozen=True)
class Header:
    """What the YAML block at the top of a source says."""

    title: str
    parent: str | None = None
    idea: str = ""
    expects: str = ""
    levers: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    rejected_by: tuple[Check, ...] = ()
    """Planted kernels: every check that must say no; empty for the honest control."""
    where: tuple[str, ...] = ()
    """Planted kernels: words of which each wrong case's name holds one; empty when the flaw shows anywhere."""
    runs_on: tuple[str, ...] = DEVICE_KINDS
    """Planted kernels: kinds of device on which the flaw can exist."""


@dataclass(frozen=True)
class Variant:
    """One kernel source with its lever values."""

    name: str
    stem: str
    source: Path
    levers: tuple[tuple[str, str], ...] = ()
    for_host: bool = False
    """A planted .cu that the host compiler builds for the CPU: one source serves both."""

    @property
    def on_cpu(self) -> bool:
        """Whether the variant runs on the CPU (a .cpp) instead of a GPU (a .cu)."""
        return self.for_host or self.source.suffix == ".cpp"


@cache
def sources() -> dict[str, Path]:
    """Every source by stem: kernels/*.cu and *.cpp, and kernels/floors/ and kernels/harness/ likewise.

    Raises VariantError for two sources of one stem or a file name that is no valid stem.
    """
    found: dict[str, Path] = {}
    for path in sorted([*KERNELS.glob("*"), *FLOORS.glob("*"), *HARNESS.glob("*")]):
        if path.suffix not in SUFFIXES or not path.is_file():
            continue
        if not re.fullmatch(STEM, path.stem):
            raise VariantError(f"{path}: a kernel's file name must be letters, digits and _, start with a letter and be no rule's name")
        if path.stem in found:
            raise VariantError(f"{path}: {found[path.stem]} has the same stem; a variant's name must be unique")
        found[path.stem] = path
    return found


@cache
def floors() -> tuple[str, ...]:
    """The stems of the floors."""
    return tuple(stem for stem, path in sources().items() if path.parent == FLOORS)


def generated(stem: str, device: str = "*") -> Path | None:
    """The source of that stem that a generator wrote on a device, or on any: its name holds a digest of its text, so all of one name are the
    same. Not cached, because an evolution writes new ones while it is planned."""
    patterns = [pattern.replace("*", device) for pattern in GENERATED]
    return next((path for pattern in patterns for suffix in SUFFIXES for path in sorted(Path().glob(f"{pattern}/{stem}{suffix}"))), None)


def planted(on_cpu: bool) -> list[Variant]:
    """The planted kernels for a kind of device, by name; no variants: they are there to be rejected.

    Raises VariantError for a file or header that cannot be used.
    """
    found = []
    for path in sorted(PLANTED.glob("*.cu")):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", path.stem):
            raise VariantError(f"{path}: a planted kernel's file name must be lower-case letters, digits and _")
        if DEVICE_KINDS[0 if on_cpu else 1] in header(path).runs_on:
            found.append(Variant(path.stem, path.stem, path, for_host=on_cpu))
    return found


def resolve(name: str) -> Variant:
    """The variant that a name means.

    Raises VariantError, one line, for a stem without a source, a lever that the source does not declare, a value that
    it does not list, or levers out of order.
    """
    if not re.fullmatch(NAME, name):
        raise VariantError(f"{name!r} is not a variant name; the form is stem or stem@LEVER=value,LEVER=value")
    stem, _, text = name.partition("@")
    source = sources().get(stem) or generated(stem)
    if source is None:
        known = [one for one in sources() if sources()[one].parent == KERNELS]
        close = difflib.get_close_matches(stem, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"
        raise VariantError(f"variant {name!r}: there is no kernels/{stem}.cu or kernels/{stem}.cpp; {hint}")
    pairs = tuple(tuple(pair.split("=", 1)) for pair in text.split(",")) if text else ()
    declared = header(source).levers if pairs else {}
    for lever, value in pairs:
        if lever not in declared:
            known = ", ".join(declared) or "none"
            raise VariantError(f"variant {name!r}: {source} declares no lever {lever} (it has: {known})")
        allowed = [str(one) for one in declared[lever]]
        if value not in allowed:
            raise VariantError(f"variant {name!r}: {lever}={value} is not one of {', '.join(allowed)} ({source})")
    names = [lever for lever, _ in pairs]
    if names != sorted(set(names)):
        ordered = ",".join(f"{lever}={value}" for lever, value in sorted(dict(pairs).items()))
        raise VariantError(f"variant {name!r}: levers are written once and sorted: {stem}@{ordered}")
    return Variant(name, stem, source, pairs)


@cache
def header(source: Path) -> Header:
    """What a source says of itself.

    Raises VariantError naming file and line when the block is missing, is not YAML, or has a key or value that does
    not belong.
    """
    try:
        text = source.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise VariantError(f"{source}: cannot be read: {error}") from None
    match = _HEADER.search(text)
    if not match:
        raise VariantError(f"{source}:1: no '/* evo-sdpa ... */' block with title, idea, expects and levers")
    first_line = text.count("\n", 0, match.start(1)) + 1
    if len(match.group(1)) > HEADER_LIMIT:
        raise VariantError(f"{source}:{first_line}: the evo-sdpa block is longer than {HEADER_LIMIT} characters")
    try:
        data = yaml.load(match.group(1), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        mark = getattr(error, "problem_mark", None)
        line = first_line + (mark.line if mark else 0)
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise VariantError(f"{source}:{line}: the evo-sdpa block is not valid YAML: {problem}") from None

    def line_of(key: str) -> int:
        found = re.search(rf"^\s*{re.escape(key)}\s*:", match.group(1), re.MULTILINE)
        return first_line + (match.group(1).count("\n", 0, found.start()) if found else 0)

    if not isinstance(data, dict):
        raise VariantError(f"{source}:{first_line}: the evo-sdpa block must be 'key: value' lines")
    known = PLANTED_KEYS if source.parent.name == PLANTED.name else HEADER_KEYS
    for key in data:
        if key not in known:
            raise VariantError(f"{source}:{line_of(str(key))}: unknown key {key!r}; known: {', '.join(known)}")
    for key in ("title", "idea", "expects"):
        if key in data and not isinstance(data[key], str):
            raise VariantError(f"{source}:{line_of(key)}: {key} must be text")
    if not data.get("title"):
        raise VariantError(f"{source}:{first_line}: the evo-sdpa block needs a title")
    parent = data.get("parent")
    if parent is not None and not (isinstance(parent, str) and re.fullmatch(NAME, parent)):
        raise VariantError(f"{source}:{line_of('parent')}: parent must be a variant's name")
    levers = data.get("levers") or {}
    if not isinstance(levers, dict):
        raise VariantError(f"{source}:{line_of('levers')}: levers must map each lever to its list of values")
    for lever, values in levers.items():
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", str(lever)):
            raise VariantError(f"{source}:{line_of('levers')}: lever {lever!r} must be an upper-case macro name")
        if not isinstance(values, list) or not values or not all(
            isinstance(one, (int, str)) and not isinstance(one, bool) and re.fullmatch(r"\w+", str(one)) for one in values
        ):
            raise VariantError(f"{source}:{line_of(str(lever))}: lever {lever} needs a list of numbers or words")

    def words(key: str, allowed: tuple[str, ...] | None = None) -> tuple[str, ...]:
        values = data.get(key) if data.get(key) is not None else []
        if not isinstance(values, list) or not all(isinstance(one, str) and (allowed is None or one in allowed) for one in values):
            choice = f" of: {', '.join(allowed)}" if allowed else " of words"
            raise VariantError(f"{source}:{line_of(key)}: {key} must be a list{choice}")
        return tuple(values)

    return Header(
        title=data["title"], parent=parent, idea=data.get("idea", ""), expects=data.get("expects", ""),
        levers={str(lever): tuple(values) for lever, values in levers.items()},
        rejected_by=tuple(Check(one) for one in words("rejected_by", tuple(Check))), where=words("where"),
        runs_on=words("runs_on", DEVICE_KINDS) or DEVICE_KINDS)


@cache
def defaults(source: Path) -> dict[str, str]:
    """The value of each declared lever where the source gives it under #ifndef. Raises VariantError like `header`."""
    declared = header(source).levers
    return {lever: value for lever, value in _DEFAULT.findall(source.read_text()) if lever in declared}


def child(stem: str, levers: dict[str, int | str], defaults: dict[str, int | str]) -> str:
    """Name of a source's variant with these lever values; its own defaults are not written, so that a variant has one name."""
    written = [f"{lever}={levers[lever]}" for lever in sorted(levers) if str(levers[lever]) != str(defaults.get(lever))]
    return stem + (f"@{','.join(written)}" if written else "")


@cache
def includes(source: Path) -> tuple[Path, ...]:
    """Headers of this project that a source includes, directly or not, sorted.

    A quoted include is looked for beside its includer, then in kernels/include. Raises VariantError when it is in
    neither: an input that silently disappears from the plan would leave stale results standing.
    """
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        current = waiting.pop()
        for name, line in _quoted(current):
            for folder in (current.parent, INCLUDE):
                candidate = folder / name
                if candidate.is_file():
                    _check_inside(candidate, f"{current}:{line}", name)
                    break
            else:
                raise VariantError(f'{current}:{line}: #include "{name}" is neither beside it nor in {INCLUDE}')
            if candidate not in found:
                found.add(candidate)
                waiting.append(candidate)
    return tuple(sorted(found))


def _check_inside(path: Path, where: str, name: str) -> None:
    """Raises VariantError for an include from outside the project: it would be read, hashed, recorded and shown to a generator."""
    if not path.resolve().is_relative_to(Path.cwd().resolve()):
        raise VariantError(f'{where}: #include "{name}" is outside the project; a kernel includes what lies beside it or in {INCLUDE}')


@cache
def _quoted(path: Path) -> tuple[tuple[str, int], ...]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise VariantError(f"{path}: cannot be read: {error}") from None
    return tuple((match.group(1), text.count("\n", 0, match.start()) + 1) for match in _INCLUDE.finditer(text))
