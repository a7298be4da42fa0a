"""The channel-aware, masked FastVim: encoder, masking, decoder, and the files that hold its weights."""

from cellvim.model.channel_embed import UNKNOWN
from cellvim.model.checkpoint import ModelCard, load_encoder, save_encoder, weights_file, weights_sha256
from cellvim.model.dense import dense_tokens
from cellvim.model.device import (
    check_kernels,
    choose_device,
    describe_backend,
    explain_out_of_memory,
    name_kernels,
)
from cellvim.model.encoder import ChannelEncoder
from cellvim.model.mae import MaskedAutoencoder, Reconstruction
from cellvim.model.masking import Mask, draw_channels, draw_mask, draw_names
from cellvim.model.mixer import weight_decay_groups
from cellvim.model.threads import compute_with

__all__ = [
    "UNKNOWN",
    "ChannelEncoder",
    "Mask",
    "MaskedAutoencoder",
    "ModelCard",
    "Reconstruction",
    "check_kernels",
    "choose_device",
    "compute_with",
    "dense_tokens",
    "describe_backend",
    "draw_channels",
    "draw_mask",
    "draw_names",
    "explain_out_of_memory",
    "load_encoder",
    "name_kernels",
    "save_encoder",
    "weight_decay_groups",
    "weights_file",
    "weights_sha256",
]
