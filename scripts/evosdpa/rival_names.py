"""Names of the rivals, importable without anything that takes time: the plan asks for them."""

ANCHOR = "sdpa-default"
"""The rival timed in every process: what PyTorch picks by itself. Ratios of things measured in different runs go through it."""

RIVALS = {
    "cpu": ("sdpa-default", "sdpa-math"),
    "cuda": ("sdpa-default", "sdpa-cudnn", "sdpa-flash", "sdpa-efficient", "sdpa-math", "flex-attention", "triton-fa2",
             "xformers", "flash-attn", "flash-attn-3", "flashinfer", "cudnn-frontend"),
}
"""Rivals by kind of device; those that are not installed say so in the evidence."""
