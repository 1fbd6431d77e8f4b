"""The C contract of kernels/include/sdpa.h, from Python: load a variant, describe a problem, launch."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
from pathlib import Path
from typing import Any

from evosdpa.problem import DTYPES, Problem

WORKSPACE_ALIGNMENT = 256


class ContractError(Exception):
    """A library that does not keep the contract; one line."""


class LaunchError(Exception):
    """sdpa_launch returned an error; one line with its number."""


class Strides(ctypes.Array):
    """Strides of batch, head and row, in elements."""

    _type_ = ctypes.c_int64
    _length_ = 3


class SdpaProblem(ctypes.Structure):
    """`sdpa_problem`, field for field."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("batch", "heads_q", "heads_kv", "seq_q", "seq_kv", "head_dim", "dtype", "causal")),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "o")),
        *((f"{name}_stride", Strides) for name in ("q", "k", "v", "o")),
        ("workspace", ctypes.c_void_p),
    ]


class LaunchInfo(ctypes.Structure):
    """`sdpa_launch_info`, field for field."""

    _fields_ = [
        ("grid", ctypes.c_int32 * 3), ("block", ctypes.c_int32 * 3), ("dynamic_shared_bytes", ctypes.c_int32),
        ("kernel", ctypes.c_char_p),
    ]


def contiguous_strides(heads: int, seq: int, head_dim: int) -> tuple[int, int, int]:
    """Strides in elements (batch, head, row) of a contiguous [batch, heads, seq, head_dim] tensor."""
    return heads * seq * head_dim, seq * head_dim, head_dim


def struct_for(problem: Problem) -> SdpaProblem:
    """The problem with contiguous strides and NULL pointers."""
    kv = contiguous_strides(problem.heads_kv, problem.seq_kv, problem.head_dim)
    q = contiguous_strides(problem.heads_q, problem.seq_q, problem.head_dim)
    return SdpaProblem(
        batch=problem.batch, heads_q=problem.heads_q, heads_kv=problem.heads_kv, seq_q=problem.seq_q,
        seq_kv=problem.seq_kv, head_dim=problem.head_dim, dtype=DTYPES[problem.dtype], causal=int(problem.causal),
        scale=problem.scale, q_stride=Strides(*q), k_stride=Strides(*kv), v_stride=Strides(*kv), o_stride=Strides(*q))


def load(path: str, sha256: str) -> ctypes.CDLL:
    """Load the very bytes whose hash is `sha256` (its first 16 hexadecimal digits, as build.json has them).

    The file is read once, hashed, and loaded from a sealed copy in memory, so that what runs is what was hashed, whatever
    happens to the file meanwhile; and a file loaded twice is two libraries with a state each. Raises ContractError.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ContractError(f"{path} cannot be read: {error.strerror}") from None
    found = hashlib.sha256(data).hexdigest()[:16]
    if found != sha256:
        raise ContractError(f"{path} is not the file that build.json describes (hash {found}, not {sha256}); delete it to have it made again")
    copy = os.memfd_create(Path(path).name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(copy, "wb", closefd=False) as file:
            file.write(data)
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        # The descriptor stays open: the loader takes a path that it has seen for the same library, so no number may come twice.
        return ctypes.CDLL(f"/proc/self/fd/{copy}", mode=ctypes.RTLD_LOCAL)
    except OSError as error:
        raise ContractError(f"{path} cannot be loaded: {error}") from None


class Library:
    """A loaded variant.

    Raises ContractError when the file is not the one that was built, cannot be loaded or lacks one of the three required
    functions.
    """

    def __init__(self, path: str, sha256: str) -> None:
        self.sha256 = sha256
        self._library = load(path, sha256)
        try:
            self._supports = self._library.sdpa_supports
            self._workspace = self._library.sdpa_workspace_bytes
            self._launch = self._library.sdpa_launch
        except AttributeError as error:
            raise ContractError(f"{path} does not export what sdpa.h asks for: {error}") from None
        pointer = ctypes.POINTER(SdpaProblem)
        self._supports.argtypes, self._supports.restype = [pointer], ctypes.c_char_p
        self._workspace.argtypes, self._workspace.restype = [pointer], ctypes.c_size_t
        self._launch.argtypes, self._launch.restype = [pointer, ctypes.c_void_p], ctypes.c_int
        self._describe = getattr(self._library, "sdpa_describe", None)
        if self._describe is not None:
            self._describe.argtypes = [pointer, ctypes.POINTER(LaunchInfo), ctypes.c_int]
            self._describe.restype = ctypes.c_int

    def supports(self, struct: SdpaProblem) -> str | None:
        """None when the variant takes the problem, else its reason."""
        reason = self._supports(ctypes.byref(struct))
        return None if reason is None else reason.decode(errors="replace")

    def workspace_bytes(self, struct: SdpaProblem) -> int:
        """Bytes of scratch for one launch."""
        return self._workspace(ctypes.byref(struct))

    def launch(self, struct: SdpaProblem, stream: int = 0) -> None:
        """Enqueue one launch. Raises LaunchError with the CUDA error's number when the variant returns one."""
        code = self._launch(ctypes.byref(struct), stream)
        if code:
            raise LaunchError(f"sdpa_launch returned CUDA error {code}")

    def describe(self, struct: SdpaProblem) -> list[dict[str, Any]] | None:
        """Launch configuration of every kernel for this problem; None when the variant does not tell."""
        if self._describe is None:
            return None
        capacity = 16
        entries = (LaunchInfo * capacity)()
        count = self._describe(ctypes.byref(struct), entries, capacity)
        return [
            dict(grid=list(one.grid), block=list(one.block), dynamic_shared_bytes=one.dynamic_shared_bytes,
                 kernel=(one.kernel or b"").decode())
            for one in entries[:max(0, min(count, capacity))]
        ]
