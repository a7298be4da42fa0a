"""The pooled, bidirectional mixer between in_proj and out_proj."""

from cellvim_kernels.pooled_mixer.gather import take_tokens
from cellvim_kernels.pooled_mixer.naive import naive_pooled_mixer
from cellvim_kernels.pooled_mixer.token_major import token_major_pooled_mixer
from cellvim_kernels.pooled_mixer.weights import MixerWeights

__all__ = [
    "MixerWeights",
    "naive_pooled_mixer",
    "take_tokens",
    "token_major_pooled_mixer",
]
