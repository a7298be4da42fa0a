"""From settings to the objective, and to the draws that it learns from."""

import logging

from cellvim.config import PretrainSettings
from cellvim.dataset import Draws, EvenDraws, TrainingIndex
from cellvim.dataset.labelled import LabelledDraws
from cellvim.dataset.pairs import PairedDraws
from cellvim.dataset.splits import Division, divide_wells
from cellvim.pretrain.aligned import AlignedObjective
from cellvim.pretrain.objective import MaskedObjective, Objective
from cellvim.pretrain.supervised import ClassifierObjective

logger = logging.getLogger(__name__)


def build_objective(settings: PretrainSettings, index: TrainingIndex) -> Objective:
    """Make what the settings ask for, freshly initialised: same settings and plates, same bytes.

    Raises:
        InputError: The objective needs labels that the plates do not have.
        UsageError: Its settings do not fit the plates, or the batch.
    """
    match settings.objective:
        case "mae":
            return MaskedObjective(settings, index.channels)
        case "align":
            return AlignedObjective(settings, index.channels)
        case "supervised":
            return ClassifierObjective(settings, index.channels, _divide(settings, index))


def build_draws(settings: PretrainSettings, index: TrainingIndex) -> Draws:
    """Say how the samples of a step are chosen: what an objective learns from.

    Raises:
        InputError: The objective needs labels that the plates do not have.
        UsageError: Its settings do not fit the plates.
    """
    match settings.objective:
        case "mae":
            return EvenDraws(index)
        case "align":
            pairs = PairedDraws(index, positives=settings.alignment.positives)
            logger.info(
                "partners of wells: %(replicate)d on another plate, %(field)d in another field of the well, "
                "%(crop)d in another crop of its only field",
                pairs.count_kinds(),
            )
            return pairs
        case "supervised":
            return LabelledDraws(index, _divide(settings, index))


def _divide(settings: PretrainSettings, index: TrainingIndex) -> Division:
    return divide_wells(index, settings.supervised, crop_px=settings.crops.crop_px)
