"""Learn an encoder from plates, and stop and resume anywhere without a trace."""

from cellvim.pretrain.autoencoder import load_autoencoder
from cellvim.pretrain.distributed import is_first_rank
from cellvim.pretrain.run import PretrainSummary, pretrain

__all__ = ["PretrainSummary", "is_first_rank", "load_autoencoder", "pretrain"]
