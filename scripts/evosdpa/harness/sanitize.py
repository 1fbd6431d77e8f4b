"""Worker under compute-sanitizer: launch one variant once on each small case. Task: library, sha256."""

import torch

from evosdpa.harness import report
from evosdpa.harness.abi import Library
from evosdpa.harness.cases import Bound, sanitizer_cases
from evosdpa.harness.nvtx import launch_range


def main() -> None:
    """Launch, read the output back, report. Tensors are filled on the host and copied, so that every byte the tools see in
    use was written by somebody, and no kernel but the variant's runs. None of the cases is strided."""
    task = report.read_task()
    library = Library(task["library"], task["sha256"])
    stream = torch.cuda.Stream()
    for number, spec in enumerate(sanitizer_cases()):
        host = Bound(spec, number, "cpu")
        if library.supports(host.struct):
            continue
        host.poison(0xFF)
        keep = []
        struct = host.struct
        for name, guarded in zip("qkvo", [*host.inputs, host.output]):
            copy = guarded.data.contiguous().cuda()  # without margins: the allocation ends where the tensor does
            setattr(struct, name, copy.data_ptr())
            keep.append(copy)
        refusal = library.supports(struct)
        if refusal:
            continue
        size = library.workspace_bytes(struct)
        if size:
            keep.append(torch.empty(size + 256, dtype=torch.uint8, device="cuda"))  # undefined, as the contract says
            struct.workspace = keep[-1].data_ptr() + -keep[-1].data_ptr() % 256
        torch.cuda.synchronize()
        with launch_range("variant", spec.problem.name, "sanitize"):
            library.launch(struct, stream.cuda_stream)
        torch.cuda.synchronize()
        keep[3].cpu()
        report.send(event="launched", name=spec.name)


if __name__ == "__main__":
    report.run(main)
