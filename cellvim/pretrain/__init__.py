"""Learn an encoder from unlabelled plates, and stop and resume anywhere without a trace."""

from cellvim.pretrain.run import PretrainSummary, pretrain

__all__ = ["PretrainSummary", "pretrain"]
