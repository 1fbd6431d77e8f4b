"""Names of the NVTX ranges, importable without PyTorch."""

RANGE = "evosdpa"
"""The outer range; `ncu --nvtx --nvtx-include evosdpa/` sees what is inside it and nothing else."""
