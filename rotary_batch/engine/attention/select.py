"""Choose the attention for a device, the numerics and the format of the KV cache."""

from __future__ import annotations

from rotary_batch.engine.attention.base import Attention
from rotary_batch.engine.attention.cpu import CpuAttention
from rotary_batch.engine.attention.exact import ExactAttention
from rotary_batch.engine.attention.exact_cpu import ExactCpuAttention
from rotary_batch.engine.attention.gather import GatherAttention
from rotary_batch.engine.attention.split import SplitAttention
from rotary_batch.engine.attention.triton import TritonAttention
from rotary_batch.engine.attention.varlen import VarlenAttention, supports_varlen
from rotary_batch.engine.kernels.cuda import HAS_TRITON
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.geometry import Geometry


def attention_for(geometry: Geometry, numerics: Numerics, kv: KvArena) -> Attention:
    """The fastest attention that works here."""
    device = kv.device
    if numerics.exact:
        has_kernel = device.type == "cpu" and ExactCpuAttention.supports(geometry, numerics.kernels, kv)
        return ExactCpuAttention(geometry, numerics.kernels) if has_kernel else ExactAttention(geometry, device)
    gather = GatherAttention(geometry, numerics.dtype, device)
    if geometry.kv_lora_rank:  # the kernels read values as wide as keys, of at most 256 numbers
        return gather
    has_triton = device.type == "cuda" and HAS_TRITON and TritonAttention.supports_head_dim(geometry.head_dim)
    is_plain = kv.stored_as == "bf16" and not geometry.attention_sinks  # what the other kernels read
    has_varlen = device.type == "cuda" and is_plain and supports_varlen(geometry, device)
    if has_triton:  # decode steps by it can be recorded as graphs
        others = VarlenAttention(device) if has_varlen and not kv.host_tokens else gather
        return TritonAttention(geometry, numerics.dtype, device, others)
    on_device: Attention  # reads only the KV cache that is in device memory
    if has_varlen:
        on_device = VarlenAttention(device)
    elif device.type == "cpu" and is_plain and numerics.kernels.supports_head_dim(geometry.head_dim):
        on_device = CpuAttention(geometry, numerics.dtype, device, numerics.kernels)
    else:
        return gather
    return SplitAttention(on_device, gather, kv.device_tokens, device) if kv.host_tokens else on_device
