"""Compile one variant: ninja drives nvcc or the host compiler; what came out is described as evidence."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from evosdpa import evidence, isolate, keys, machine
from evosdpa.config import Config
from evosdpa.evidence import Build, Status
from evosdpa.variants import INCLUDE, Variant, header, includes

_PTXAS_ENTRY = re.compile(r"Compiling entry function '(?P<name>\S+)' for '(?P<arch>\S+)'")
_PTXAS_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_PTXAS_USED = re.compile(r"Used (\d+) registers")
_PTXAS_SHARED = re.compile(r"(\d+) bytes smem")
_WARNING = re.compile(r"warning|C7\d{3}", re.IGNORECASE)


def lever_flags(variant: Variant) -> list[str]:
    """-D macros for the levers that a variant sets."""
    return [f"-D{lever}={value}" for lever, value in variant.levers]


def flags(variant: Variant, config: Config, arch: str) -> list[str]:
    """All compiler flags that decide the binary, levers apart."""
    entry = config.variants.get(variant.name)
    extra = entry.flags if entry else []
    if variant.on_cpu:
        language = ["-x", "c++"] if variant.for_host else []
        return [*config.compile.host_flags, "-shared", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", f"-I{INCLUDE}", *extra, *language]
    number = arch.removeprefix("sm_")
    return [
        *config.compile.nvcc_flags, "-gencode", f"arch=compute_{number},code=sm_{number}", "-shared", "-Xcompiler",
        "-fPIC,-fvisibility=hidden,-fno-gnu-unique", "-Xptxas", "-v", f"-I{INCLUDE}", *extra,
    ]


def build_parts(variant: Variant, config: Config, arch: str) -> dict[str, str]:
    """The parts of the build's content key as they are today."""
    compiler = machine.compiler_identity(cuda=not variant.on_cpu)
    return keys.build_parts(variant, flags(variant, config, arch), compiler)


def _escape(path: str | Path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def _ninja_file(variant: Variant, command: list[str], library: Path, depfile: Path) -> str:
    """A build file with one edge. `deps` stay in the depfile: it is read back as evidence."""
    line = shlex.join(command).replace("$", "$$")
    return (
        f"builddir = {_escape(library.parent)}\nrule compile\n  command = {line}\n  depfile = {_escape(depfile)}\n  description = {variant.name}\n"
        f"build {_escape(library)}: compile {_escape(variant.source)}\n"
    )


def _read_depfile(path: Path) -> list[str]:
    """Prerequisites named in a make-style dependency file."""
    try:
        text = path.read_text().replace("\\\n", " ")
    except OSError:
        return []
    _, _, names = text.partition(":")
    return [name.replace("\\ ", " ") for name in re.split(r"(?<!\\)\s+", names) if name]


def parse_ptxas(log: str) -> list[dict[str, int | str]]:
    """Registers, spills, stack and static shared bytes of each kernel from `ptxas -v`'s report."""
    kernels: list[dict[str, int | str]] = []
    for line in log.splitlines():
        if entry := _PTXAS_ENTRY.search(line):
            kernels.append(dict(name=entry["name"], arch=entry["arch"], registers=0, stack_bytes=0, spill_stores=0,
                                spill_loads=0, static_shared_bytes=0))
        elif kernels and (stack := _PTXAS_STACK.search(line)):
            kernels[-1].update(stack_bytes=int(stack[1]), spill_stores=int(stack[2]), spill_loads=int(stack[3]))
        elif kernels and (used := _PTXAS_USED.search(line)):
            kernels[-1]["registers"] = int(used[1])
            if shared := _PTXAS_SHARED.search(line):
                kernels[-1]["static_shared_bytes"] = int(shared[1])
    return kernels


def compile_variant(variant: Variant, config: Config, arch: str, folder: Path, log: Path | None = None, extra_flags: tuple[str, ...] = ()) -> Build:
    """Compile a variant into `folder` (kernel.so, kernel.cubin, build.json) and return the evidence, which keeps head and tail
    of what the compiler said; all of it goes to `log`.

    `extra_flags` are for a build that only serves to find something out (line numbers); no key knows them.

    A source that does not compile is evidence with status `failed` and the compiler's output; its kernel.so is an empty
    file, so that the plan goes on. Without a compiler the status is `not_run` and says how to get one.
    """
    about = header(variant.source)
    parts = build_parts(variant, config, arch)
    record = Build(
        variant=variant.name, device=arch, origin="static", arch=arch, title=about.title, idea=about.idea, parent=about.parent,
        expects=about.expects, levers=dict(variant.levers), declared_levers={name: list(values) for name, values in about.levers.items()},
        started=evidence.now(), key_parts=parts, key=keys.combine(parts), git=machine.git_state())
    library, cubin, said = b"", b"", ""
    compiler = machine.host_compiler() if variant.on_cpu else machine.tool("nvcc")
    if compiler is None:
        what = "no C++ compiler (g++) was found; install one or set CXX" if variant.on_cpu else (
            f"no nvcc of at least {'.'.join(map(str, machine.OLDEST_NVCC))} was found; "
            "'make' installs one, or: pip install -r envs/nvcc.txt")
        record.status, record.reason = Status.NOT_RUN, what
    else:
        record.tools = {"compiler": parts["compiler"], "path": compiler}
        with tempfile.TemporaryDirectory(prefix="evosdpa-") as scratch:
            library, cubin, said = _compile(variant, config, arch, compiler, Path(scratch), record, extra_flags)
    record.ended = evidence.now()
    if log:
        evidence.write_text(log, said)
    evidence.write_bytes(folder / "kernel.so", library)
    evidence.write_bytes(folder / "kernel.cubin", cubin)
    evidence.write(folder / "build.json", record)
    return record


def _compile(variant: Variant, config: Config, arch: str, compiler: str, scratch: Path, record: Build,
             extra_flags: tuple[str, ...]) -> tuple[bytes, bytes, str]:
    """Run ninja in a scratch folder; fill the record; return the library's and the cubin's bytes and all that was said.

    Raises EvidenceError when the disk is full: that is no verdict on the source.
    """
    target, depfile, keep = scratch / "kernel.so", scratch / "kernel.d", scratch / "keep"
    keep.mkdir()
    command = [compiler, *flags(variant, config, arch), *lever_flags(variant), *extra_flags, "-MMD", "-MF", str(depfile)]
    if not variant.on_cpu:
        # --keep: nvcc's output is the same in every run only when its intermediate files have fixed names; it also leaves
        # the cubin. The library folder is needed where nvcc comes from the Python packages (lib instead of lib64).
        host = machine.host_compiler()
        wheel_lib = Path(compiler).parent.parent / "lib"
        command += ["--keep", "--keep-dir", str(keep)]
        command += ["-ccbin", host] if host else []
        command += [f"-L{wheel_lib}"] if wheel_lib.is_dir() else []
    command += ["-o", str(target), str(variant.source)]
    record.command = shlex.join(command).replace(str(scratch), "$BUILD")
    (scratch / "build.ninja").write_text(_ninja_file(variant, command, target, depfile))
    ninja = shutil.which("ninja", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if ninja is None:
        record.status, record.reason = Status.ERROR, "ninja was not found; pip install -r envs/requirements.txt"
        return b"", b"", ""
    # `-d keepdepfile`: ninja would otherwise swallow the list of headers that the evidence records.
    outcome = isolate.run([ninja, "-f", str(scratch / "build.ninja"), "-d", "keepdepfile", "--verbose"], config.compile.timeout_s)
    record.seconds = round(outcome.seconds, 3)
    said = outcome.output.replace(str(scratch), "$BUILD")
    record.log = evidence.clip(said)
    record.warnings = [line.strip()[:300] for line in said.splitlines() if _WARNING.search(line) and "-Xptxas" not in line][:20]
    record.ptxas = parse_ptxas(said)
    if outcome.status is Status.TIMEOUT:
        record.status, record.reason = Status.TIMEOUT, f"compilation {outcome.reason}"
        return b"", b"", said
    if outcome.status is not Status.OK or not target.is_file():
        if os.strerror(errno.ENOSPC) in said:
            raise evidence.EvidenceError(f"{scratch.parent}: {os.strerror(errno.ENOSPC)} for the compiler's temporary files; free some and run again")
        error = next((line for line in said.splitlines() if re.search(r"\b(error|fatal)\b", line, re.IGNORECASE)), outcome.reason)
        record.status, record.reason = Status.FAILED, f"does not compile: {error.strip()[:300]}"
        return b"", b"", said
    read = {str(path) for path in includes(variant.source)}
    real = sorted(name for name in _read_depfile(depfile) if not Path(name).is_absolute() and name != str(variant.source))
    record.headers = [str(Path(name)) for name in real]
    missed = sorted(set(record.headers) - read)
    if missed:
        record.status = Status.ERROR
        record.reason = f"the compiler read {missed[0]}, which no quoted #include names; changes to it would go unnoticed"
        return b"", b"", said
    cubins = sorted(keep.glob(f"{variant.stem}*.cubin"))  # beside it lies the device linker's, which is empty
    library = target.read_bytes()
    cubin = cubins[0].read_bytes() if cubins else b""
    record.library_sha256, record.cubin_sha256 = keys.digest(library), keys.digest(cubin) if cubin else ""
    return library, cubin, said

