"""How far apart are the two kinds of controls of an assay?"""

from jaxtyping import Float
from numpy import ndarray


def z_prime(negative: Float[ndarray, " n"], positive: Float[ndarray, " p"]) -> float:
    """Separation of two groups of controls: ``1 - 3 (sd + sd) / |difference of means|``; above 0.5 is an excellent assay.

    Minus infinity where the means are the same. Both groups need two wells or more.

    Source:
        Zhang, Chung, Oldenburg 1999, "A simple statistical parameter for use in evaluation and validation of
        high throughput screening assays".
    """
    distance = abs(float(positive.mean() - negative.mean()))
    spread = float(positive.std(ddof=1) + negative.std(ddof=1))
    return 1 - 3 * spread / distance if distance else float("-inf")
