"""Which attention suits a device, a way to compute and a way to keep keys.

Knows what each can read; knows nothing of how they work.
"""

from __future__ import annotations

from rotary_batch.engine.attention.base import Attention
from rotary_batch.engine.attention.cpu import CpuAttention
from rotary_batch.engine.attention.exact import ExactAttention
from rotary_batch.engine.attention.gather import GatherAttention
from rotary_batch.engine.attention.split import SplitAttention
from rotary_batch.engine.attention.triton import TritonAttention
from rotary_batch.engine.attention.varlen import VarlenAttention, varlen_works
from rotary_batch.engine.kernels.cuda import HAS_TRITON
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.geometry import Geometry


def attention_for(geometry: Geometry, numerics: Numerics, kv: KvArena) -> Attention:
    """The fastest that works here."""
    device, plain = kv.device, GatherAttention(geometry, numerics.dtype, kv.device)
    staying: Attention
    if numerics.exact:
        return ExactAttention(geometry, device)
    if device.type == "cuda" and kv.stored_as == "bf16" and varlen_works(geometry, device):
        staying = VarlenAttention(device)
    elif device.type == "cuda" and HAS_TRITON and TritonAttention.takes_heads(geometry.head_dim):
        return TritonAttention(geometry, numerics.dtype, device)
    elif device.type == "cpu" and kv.stored_as == "bf16" and numerics.kernels.takes_heads(geometry.head_dim):
        staying = CpuAttention(geometry, numerics.dtype, device, numerics.kernels)
    else:
        return plain
    return SplitAttention(staying, plain, kv.device_tokens, device) if kv.host_tokens else staying
