"""What gets timed: variants, floors and rivals behind one face, over rotating sets of inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from evosdpa.harness import rivals
from evosdpa.harness.abi import Library, SdpaProblem, WORKSPACE_ALIGNMENT, struct_for
from evosdpa.harness.dtypes import TORCH_DTYPES
from evosdpa.problem import Problem


class Refused(Exception):
    """A subject that does not take the problem; the message is its reason."""


@dataclass
class Inputs:
    """Sets of q, k, v for one problem, [batch, heads, seq, head_dim], unit normal, each set with other values."""

    problem: Problem
    device: str
    sets: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def _fill(self, number: int, seed: int) -> None:
        """Give set `number` the values of a seed, in place."""
        generator = torch.Generator(self.device).manual_seed(seed + number)
        for tensor in self.sets[number]:
            tensor.normal_(generator=generator)

    def grow(self, count: int, seed: int) -> None:
        """Have at least `count` sets."""
        problem, dtype = self.problem, TORCH_DTYPES[self.problem.dtype]
        q_shape = (problem.batch, problem.heads_q, problem.seq_q, problem.head_dim)
        kv_shape = (problem.batch, problem.heads_kv, problem.seq_kv, problem.head_dim)
        for number in range(len(self.sets), count):
            self.sets.append(tuple(torch.empty(shape, dtype=dtype, device=self.device) for shape in (q_shape, kv_shape, kv_shape)))
            self._fill(number, seed)

    def renew(self, seed: int) -> None:
        """Give every set the values of another seed, in place: the same pointers hold other inputs."""
        for number in range(len(self.sets)):
            self._fill(number, seed)


class Subject:
    """Something to time: `launch(i)` enqueues one forward of input set i on the current stream."""

    name: str
    checked: bool = True
    """Whether its outputs mean attention; floors' do not."""
    reads_in_place: bool = False
    """Whether every launch reads the sets' own tensors, so that values renewed in place must show in its output."""

    def launch(self, index: int) -> None:
        """Enqueue one forward of set `index`."""
        raise NotImplementedError

    def output(self, index: int) -> torch.Tensor:
        """The output of the last launch of set `index`."""
        raise NotImplementedError

    def poison(self) -> None:
        """Fill every output there is with NaN, on the current stream."""
        raise NotImplementedError


class LibrarySubject(Subject):
    """A variant or floor behind the C contract. Raises Refused when it does not take the problem, ContractError."""

    reads_in_place = True

    def __init__(self, name: str, path: str, sha256: str, inputs: Inputs, checked: bool) -> None:
        self.name, self.checked, self.sha256 = name, checked, sha256
        self._library = Library(path, sha256)
        self._inputs = inputs
        self._structs: list[SdpaProblem] = []
        self._outputs: list[torch.Tensor] = []
        self._workspace: torch.Tensor | None = None
        struct = struct_for(inputs.problem)
        struct.q, struct.k, struct.v = (tensor.data_ptr() for tensor in inputs.sets[0])
        refusal = self._library.supports(struct)
        if refusal:
            raise Refused(refusal)

    def _struct(self, index: int) -> SdpaProblem:
        while len(self._structs) <= index:
            q, k, v = self._inputs.sets[len(self._structs)]
            output = torch.full_like(q, float("nan"))
            struct = struct_for(self._inputs.problem)
            struct.q, struct.k, struct.v, struct.o = (tensor.data_ptr() for tensor in (q, k, v, output))
            size = self._library.workspace_bytes(struct)
            if size and self._workspace is None:
                self._workspace = torch.empty(size + WORKSPACE_ALIGNMENT, dtype=torch.uint8, device=q.device)
            if self._workspace is not None:
                start = self._workspace.data_ptr()
                struct.workspace = start + -start % WORKSPACE_ALIGNMENT
            self._structs.append(struct)
            self._outputs.append(output)
        return self._structs[index]

    def launch(self, index: int) -> None:
        """Enqueue one forward of set `index`; raises LaunchError when the variant returns an error."""
        stream = torch.cuda.current_stream().cuda_stream if self._inputs.device == "cuda" else 0
        self._library.launch(self._struct(index), stream)

    def poison(self) -> None:
        """Fill every output with NaN, on the current stream."""
        for output in self._outputs:
            output.fill_(float("nan"))

    def output(self, index: int) -> torch.Tensor:
        """The output of the last launch of set `index`."""
        self._struct(index)
        return self._outputs[index]


class RivalSubject(Subject):
    """A rival. Every set is prepared by the rival's own rules. Raises Refused when it is not available."""

    def __init__(self, rival: rivals.Rival, inputs: Inputs) -> None:
        self.name = rival.name
        self._rival, self._inputs = rival, inputs
        self._calls: list[Callable[[], torch.Tensor]] = []
        self._outputs: dict[int, torch.Tensor] = {}
        self._call(0)

    def _call(self, index: int) -> Callable[[], torch.Tensor]:
        while len(self._calls) <= index:
            try:
                self._calls.append(self._rival.prepare(self._inputs.problem, *self._inputs.sets[len(self._calls)]))
            except rivals.Unavailable as reason:
                raise Refused(str(reason)) from None
        return self._calls[index]

    def launch(self, index: int) -> None:
        """Enqueue one forward of set `index`. The output is kept until the next launch of this set, so that sets do not share
        memory and stream mode really rotates outputs."""
        self._outputs[index] = self._call(index)()

    def poison(self) -> None:
        """Fill the last output of each set with NaN, on the current stream; after a capture those are the graph's own."""
        for output in self._outputs.values():
            output.fill_(float("nan"))

    def output(self, index: int) -> torch.Tensor:
        """The output of the last launch of set `index`."""
        return self._outputs[index]
