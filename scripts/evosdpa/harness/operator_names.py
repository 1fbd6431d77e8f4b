"""What can be called from Python to get attention, by the names that evidence has; no torch here, so that all sides may read them."""

OPERATOR = "torch_op.sdpa"
"""The registered operator."""

PYTORCH = "F.scaled_dot_product_attention"

LIBRARY = "sdpa_launch"
"""The library's function called through ctypes, everything prepared beforehand: nothing is checked or allocated."""
