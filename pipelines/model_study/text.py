"""Words of the model study's page: what was done and how to read it. Numbers of results are no part of it."""

from collections.abc import Mapping

from cellvim.config import PretrainSettings
from pipelines.model_study.plates import (
    INERT,
    JUDGED_REPLICATES,
    LEARNED,
    STRENGTHS,
    STUDIED_MECHANISMS,
    list_compounds,
)
from pipelines.model_study.run import CONFIG, LONGER, Study
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
    "masking": "channel_steps 0.5, which hides whole stains in fewer than half of the steps (see Masking)",
    "channel order": "channel-first",
    "pooling divisor": "count",
    "backward rows": "corrected",
    "backbone": "fast_channel_vim",
    "objective": "mae",
    "features of the same weights": "per channel, final norm",
}
"""What each factor is by default."""

PICTURE = "Difference of every row from the default by each metric, with its 95 % interval"
LEGEND = """Filled: distinguishable by the rule above. Open and coloured: suggested. Grey: noise. Blue is better than the
default, orange worse.
"""
SAME_PLATE = (
    "Plate and wells are the same for all seeds, and the plate learned from is the plate judged: intervals here are "
    "about other trainings and other doses only, not about other plates."
)
"""What an interval on BBBC013 is not about."""


def introduction(study: Study) -> str:
    return f"""# Which settings of the model make better profiles?

One factor at a time from the default, {count(len(study.seeds), "seed")}, equal data, recipe and number of steps, nano
models. Written by `make study`, which is

    python -m pipelines.model_study --source ../shared/data/bbbc013 --out out/model_study \\
        --docs docs/model_study.md --workers 2 --confirm

It takes about an hour and a quarter on two cores and goes on where it was interrupted. No number of a
result was typed by hand.
"""


def design(study: Study, stains: Mapping[DataName, int]) -> str:
    """Say what was done.

    Args:
        study: Seeds and sizes.
        stains: Number of stains of each data set, as far as it is known.
    """
    size, seeds = study.size, count(len(study.seeds), "seed")
    return f"""
## What was done

**Recipe** of every run: [configs/model_study.yaml](../configs/model_study.yaml). Its learning rate is the one that
`configs/demo.yaml` had been given by reconstruction loss, on other plates and seeds; it was chosen for the default
backbone and for none of the others, and was tuned on nothing that is reported here. A transformer may want another.
*Equal steps* is not equal time: the tables say about what a step costs.

**Masking**: `channel_steps` is the share of steps that draw a number k of stains to hide wholly, from 0 to T-1 of T
stains. With k = 0 the step hides patches instead, so whole stains are hidden in (T-1)/T of that share only.
{masking_shares(stains)}`channel_steps` 0 hides patches in every step; no setting hides whole stains in every step.
Names of stains are left out at random (`name_dropout`) in patch steps only, so the masking rows differ in that too.

**Synthetic plates**: per seed {count(size.learned, "plate")} to learn from and {size.judged} others to be judged on,
{size.wells} wells of {count(size.sites, "field")} of {size.side_px} px each. Judged plates hold
{len(list_compounds(size.effect))} compounds of {len(STUDIED_MECHANISMS)} mechanisms and {INERT} inert perturbations,
{count(JUDGED_REPLICATES, "well")} each, and {size.judged_controls} controls. The plates learned from hold {len(LEARNED)}
of the {len(STRENGTHS)} compounds of each mechanism, so that an objective that is shown labels can be judged by
compounds it never saw. The seed decides plates, initial weights and draws together: an interval is about other plates
*and* other trainings. Effects are weaker and cells fewer than in the demo. Their strength was set with an untrained
encoder and one default training on the seeds 90 and 91, which are not reported, so that no metric is at chance or
near 1 (0.6 of the final strength left everything at chance; 1.1 was tried too).

**BBBC013**: plate 1049, learned from without labels and judged on, as there is no second plate with a public plate
map. {SAME_PLATE} One field per well, so *align, one well* takes another crop of the same field as its positive, and
alignment by replicates on other plates is not possible.

**The rule**, fixed before any result of these seeds was seen. A row differs from the default *distinguishably* if its
p-value, adjusted by Holm's method for all rows compared by that metric on that data set, is below 0.05: bold. If only
its own 95 % interval excludes 0, the difference is *suggested*: italic. Everything else is noise.

**What the rule does not control**: Holm's method works within one family, which is one metric on one data set. Each
family has up to a 5 % chance of a false "better" or "worse", and nothing is adjusted for the number of families. What
rests on one metric on one data set is therefore a lead, not a result.

**Intervals** are of the mean over seeds and units (perturbations, or doses) of the difference from the default with
the same seed and the same unit: two-way random model, seeds crossed with units, Satterthwaite's degrees of freedom.
A few seeds cannot be bootstrapped: a test shows that with three it would call several times too many differences.
Separation and trend cannot be divided into units: their intervals rest on one difference per seed ({seeds}).
"""


def confirmation(wins: str) -> str:
    """Introduce the second stage.

    Args:
        wins: A line per row: by which metrics it was ahead in the first stage.
    """
    return f"""
## Longer, on other seeds

A row that is ahead of the default above might be quicker rather than better, or lucky: the best of many rows looks
better than it is. So some rows were trained again beside the default, {LONGER} times as many steps, on new synthetic
plates and seeds that nothing had been chosen by. The list of rows was fixed in the code before any of these plates
existed: when only the first seed of the first stage was known, or two of them (*align, one well*). What the first
stage says of them now:

{wins}
Same rule, with families of its own.
"""


def masking_shares(stains: Mapping[DataName, int]) -> str:
    """Say in which share of the steps whole stains are hidden, on average, by the default and at the most."""
    usual = PretrainSettings.from_yaml(CONFIG).masking.channel_steps
    parts = [
        f"{100 * usual * (number - 1) / number:.0f} % by the default and {100 * (number - 1) / number:.0f} % by "
        f"`channel_steps` 1 on {DATA_TITLES[data]} ({count(number, 'stain')})"
        for data, number in stains.items()
        if number
    ]
    return f"On average that is {'; '.join(parts)}.\n" if parts else ""


def count(number: int, thing: str) -> str:
    """Write a number of things: 1 seed, 3 seeds."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


READING = """
## How to read it

- **Activity**: mean average precision with which a well finds its replicates, on all plates, among the negative
  controls of its own plate. **Retrieval across plates**: with which it finds its replicates on other plates among
  all wells of other treatments, on every plate.
  **Mechanism probe**: share of wells whose mechanism a linear classifier names that was fitted without their plate.
  All through `embed` and `evaluate` with their defaults (sphered on negative controls, wells as means of fields).
- **Hidden stain**: every stain in turn is hidden wholly and predicted from all others by the moving average of the
  autoencoder, on the same tiles for all variants; share of the variance of its pixels that is predicted, mean over
  stains. 0 is the field's mean. For the masking rows it is a check and no part of the verdict, because hiding whole
  stains is what one side of them trains on. The row *intensity statistics* holds, in this column, linear regression
  of a pixel on the same pixel of the other stains. An untrained decoder predicts nothing and has no value.
- **High doses among all**, **separation**, **trend**: as in [bbbc013.md](bbbc013.md); trend is the mean over both
  compounds.
- **divisor: width** is one training and two readings: as it is, and with the pooled means of whole images scaled by
  the share of patches that training left visible (`dense_pool_scale: 0.25`), as imported masked models are.
- **Blocks** and **over all channels** are other features of the same weights; no training stands behind them.
- **backbone: channel ViT** has half as many blocks, each with as many weights as two others.
- **ms per step**: one thread, median over seeds, on a machine that did other work beside it: an indication. Speeds that
  were measured alone are in [training_speed.md](training_speed.md).
"""

DECISION = """**What was decided from both stages, 2026-11-21**: the defaults stay. The one row that the second stage calls
better, bag of channels, is so by activity on synthetic plates. Retrieval points the same way; the probe, the hidden
stain and the real plate do not tell the two apart. That is a reason to try `--backbone bag_of_channels` with models of
this size, and to ask again with larger ones, for which mixing channels is reported to pay.
"""
"""The only sentences about results that are typed; to be written anew whenever the study is run anew."""

CAVEATS = """
## What this cannot say

Nano models, a few hundred steps, small crops: differences that grow with size or length of training are not seen
here, and the published comparisons were made with models ten to a hundred times larger. Synthetic cells are drawn by
one program; a setting may suit its textures. BBBC013 is one plate with one phenotype, on which activity saturates
(see [bbbc013_choices.md](bbbc013_choices.md)). "Noise" means that this study could not see a difference, with the
interval beside it saying how large a one it may have missed.
"""
