"""As many threads in the second half of a run as in the first."""

import torch


def compute_with(threads: int | None) -> int:
    """Set the number of threads that PyTorch computes with, and return it.

    A sum over many numbers comes out with other last bits when it is split over another number of threads. A run
    that resumes on another machine, or under another OMP_NUM_THREADS, therefore goes on with the number it began
    with.

    Args:
        threads: Number that the run began with; None to begin with what the machine offers.
    """
    chosen = threads or torch.get_num_threads()
    torch.set_num_threads(chosen)
    return chosen
