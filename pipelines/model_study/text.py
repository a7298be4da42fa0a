"""Words of the model study's page: what was done and how to read it. Numbers of results are no part of it."""

from pipelines.model_study.variants import DataName

DATA_TITLES: dict[DataName, str] = {"synthetic": "Synthetic plates", "bbbc013": "BBBC013"}
METRIC_NAMES = {
    "activity": "activity",
    "retrieval": "retrieval across plates",
    "probe": "mechanism probe",
    "reconstruction": "hidden stain",
    "high_doses": "high doses among all",
    "separation": "separation",
    "trend": "trend",
}

DEFAULT_CHOICES = {
    "masking": "half of the steps hide patches, half whole channels",
    "channel order": "channel-first",
    "pooling divisor": "count",
    "backward rows": "corrected",
    "backbone": "fast_channel_vim",
    "objective": "mae",
    "features of the same weights": "per channel, final norm",
}
"""What each factor is by default."""

INTRODUCTION = """# Which settings of the model make better profiles?

One factor at a time from the default, three seeds, equal data, recipe and number of steps, nano models. Written by
`make study` (`python -m pipelines.model_study`), which takes about an hour on two cores and goes on where it was
interrupted. No number below was typed by hand.
"""

DESIGN = """
## What was done

**Recipe** of every run: [configs/model_study.yaml](../configs/model_study.yaml). Its learning rate is the one that
`configs/demo.yaml` had been given by reconstruction loss, on other plates and seeds; it was chosen for the default
backbone and for none of the others, and was tuned on nothing that is reported here. A transformer may want another.
*Equal steps* is not equal time: the tables say what a step costs (one thread, two runs at a time).

**Synthetic plates**: per seed three plates to learn from and three others to be judged on, 72 wells of two fields of
192 px each. Judged plates hold 24 compounds of six mechanisms, two wells each, two inert perturbations and 20
controls. The plates learned from hold half of the compounds, so that an objective that is shown labels can be judged
by compounds it never saw. The seed decides plates, initial weights and draws together: an interval is about other
plates *and* other trainings. Effects are weaker and cells fewer than in the demo. Their strength was set with an
untrained encoder and one default training on the seeds 90 and 91, which are not reported, so that no metric is at
chance or near 1 (0.6 of the final strength left everything at chance; 1.1 was tried too).

**BBBC013**: plate 1049, learned from without labels and judged on, as there is no second plate with a public plate
map. One field per well, so *align, one well* takes another crop of the same field as its positive, and alignment by
replicates on other plates is not possible.

**The rule**, fixed before any result of these seeds was seen. A row differs from the default *distinguishably* if its
p-value, adjusted by Holm's method for all rows compared by that metric on that data set, is below 0.05: bold. If only
its own 95 % interval excludes 0, the difference is *suggested*: italic. Everything else is noise.

**Intervals** are of the mean over seeds and units (perturbations, or doses) of the difference from the default with
the same seed and the same unit: two-way random model, seeds crossed with units, Satterthwaite's degrees of freedom.
Three seeds are too few to bootstrap; a test shows that a bootstrap would call several times too many differences.
Separation and trend cannot be divided into units: their intervals rest on three differences.
"""

CONFIRMATION = """
## Longer, on other seeds

What was ahead of the default above might be quicker rather than better, or lucky: the best of many rows looks better
than it is. So these rows, chosen by the results above, were trained again beside the default, twice as many
steps, on new synthetic plates and seeds that nothing had been chosen by. Same rule, and a family of its own.
"""

READING = """
## How to read it

- **Activity**: mean average precision with which a well finds its replicates among the negative controls of its
  plate. **Retrieval across plates**: with which it finds its replicates on other plates among all wells there.
  **Mechanism probe**: share of wells whose mechanism a linear classifier names that was fitted without their plate.
  All through `embed` and `evaluate` with their defaults (sphered on negative controls, wells as means of fields).
- **Hidden stain**: every stain in turn is hidden wholly and predicted from all others by the moving average of the
  autoencoder, on the same tiles for all variants; share of the variance of its pixels that is predicted, mean over
  stains. 0 is the field's mean. The row *intensity statistics* holds, in this column, linear regression of a pixel on
  the same pixel of the other stains. An untrained decoder predicts nothing and has no value.
- **High doses among all**, **separation**, **trend**: as in [bbbc013.md](bbbc013.md); trend is the mean over both
  compounds.
- **divisor: width** is one training and two readings: as it is, and with the pooled means of whole images scaled by
  the share of patches that training left visible (`dense_pool_scale: 0.25`), as imported masked models are.
- **Blocks** and **over all channels** are other features of the same weights; no training stands behind them.
- **backbone: channel ViT** has half as many blocks, each with as many weights as two others.
"""

CAVEATS = """
## What this cannot say

Nano models, a few hundred steps, small crops: differences that grow with size or length of training are not seen
here, and the published comparisons were made with models ten to a hundred times larger. Synthetic cells are drawn by
one program; a setting may suit its textures. BBBC013 is one plate with one phenotype, on which activity saturates
(see [bbbc013_choices.md](bbbc013_choices.md)). "Noise" means that this study could not see a difference, with the
interval beside it saying how large a one it may have missed.
"""
