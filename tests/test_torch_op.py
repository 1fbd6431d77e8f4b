"""A built variant as a PyTorch operator, over the CPU's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from evosdpa import torch_op, variants
from evosdpa.evidence import EvidenceError
from evosdpa.harness.operator_checks import Block
from evosdpa.torch_op import UnsupportedError
from workspace import PROJECT
from workspace import PROJECT

TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.fixture(scope="module")
def builds(built):
    return built.folder / "results" / "build"


def inputs(shape_q, shape_kv=None, dtype=torch.float32, seed=1):
    made = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=made).to(dtype) for shape in (shape_q, shape_kv or shape_q, shape_kv or shape_q)]


@pytest.mark.parametrize("shape_q, shape_kv, dtype, options", [
    ((2, 3, 33, 64), None, torch.float32, {}),
    ((1, 2, 64, 64), None, torch.float16, {"is_causal": True}),
    ((1, 8, 17, 128), (1, 2, 41, 128), torch.bfloat16, {"enable_gqa": True}),
    ((1, 2, 20, 64), (1, 2, 50, 64), torch.float32, {"scale": 0.05, "is_causal": True}),
])
def test_it_computes_what_pytorch_does(builds, shape_q, shape_kv, dtype, options):
    q, k, v = inputs(shape_q, shape_kv, dtype)
    found = torch_op.sdpa(q, k, v, builds=builds, **options)
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), **options)
    assert found.dtype == dtype and found.is_contiguous()
    torch.testing.assert_close(found.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_libraries_are_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert torch_op.BUILDS == PROJECT / "results" / "build"


def test_views_that_a_transformer_makes_need_no_copy_and_others_are_copied(builds):
    packed = torch.randn(2, 16, 3, 4, 64)
    q, k, v = packed.permute(2, 0, 3, 1, 4)  # [batch, heads, seq, head_dim], rows apart
    torch.testing.assert_close(torch_op.sdpa(q, k, v, builds=builds), F.scaled_dot_product_attention(q, k, v), atol=2e-5, rtol=2e-5)
    turned = [one.transpose(-1, -2).contiguous().transpose(-1, -2) for one in (q, k, v)]  # last dimension not contiguous
    torch.testing.assert_close(torch_op.sdpa(*turned, builds=builds), F.scaled_dot_product_attention(q, k, v), atol=2e-5, rtol=2e-5)


def test_the_default_of_each_kind_of_device_is_a_variant_for_it(monkeypatch):
    monkeypatch.chdir(PROJECT)
    assert {kind: variants.resolve(name).on_cpu for kind, name in torch_op.DEFAULTS.items()} == {"cpu": True, "cuda": False}


def test_it_is_a_well_formed_operator(builds):
    q, k, v = inputs((1, 2, 8, 64))
    torch.library.opcheck(torch.ops.evosdpa.sdpa.default, (q, k, v, "v0_reference", str(builds), False, 0.125))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_transformer_block_in_half_precision_gives_what_it_gives_with_pytorch(builds, compiled):
    torch.manual_seed(3)
    block = Block(F.scaled_dot_product_attention, 2, 64).to(torch.bfloat16).eval()
    x = torch.randn(2, 48, 128).to(torch.bfloat16)
    with torch.no_grad():
        expected = block(x)
        block.attention = lambda q, k, v, is_causal: torch_op.sdpa(q, k, v, is_causal, builds=builds)
        forward = torch.compile(block, backend="aot_eager", fullgraph=True) if compiled else block
        torch.testing.assert_close(forward(x), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("change, message", [
    (lambda q, k, v: (q[0], k, v), r"must be \[batch, heads, seq, head_dim\], not of 3, 4, 4 dimensions"),
    (lambda q, k, v: (q.half(), k, v), "must all be fp16, bf16 or fp32, not torch.float16, torch.float32, torch.float32"),
    (lambda q, k, v: (q.double(), k.double(), v.double()), "not torch.float64"),
    (lambda q, k, v: (q, k[..., :32], v[..., :32]), "shapes do not fit together"),
    (lambda q, k, v: (q, k[:, :1], v[:, :1]), "4 query heads and 1 key heads: they must be equal, or with enable_gqa=True a multiple"),
    (lambda q, k, v: (q.requires_grad_(), k, v), "sdpa is forward only"),
    (lambda q, k, v: (q.to("meta"), k.to("meta"), v.to("meta")), "sdpa runs on cpu and cuda, not on meta"),
])
def test_what_does_not_fit_is_one_clear_line(builds, change, message):
    with pytest.raises(UnsupportedError, match=message) as caught:
        torch_op.sdpa(*change(*inputs((1, 4, 8, 64))), builds=builds)
    assert "\n" not in str(caught.value)


def test_what_the_variant_refuses_and_what_is_not_built_say_so(builds):
    q, k, v = inputs((1, 1, 4, 512))
    with pytest.raises(UnsupportedError, match="v0_reference does not take this problem: "):
        torch_op.sdpa(q, k, v, builds=builds)
    with pytest.raises(EvidenceError, match="is not built: snakemake --cores 1 .*v9_none/kernel.so"):
        torch_op.sdpa(q, k, v, builds=builds, variant="v9_none")
