"""Does a compound's profile move with the dose? Rank correlation, and p from doses dealt anew within plates."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int
from numpy import ndarray

from cellvim.statistics.permutation import Arrangements, arrangements, centred_ranks, row_spearman

# Arrangements of a compound are held at once: so many doses at most, and never so few that p could not be small.
MOST_ENTRIES = 2**20
FEWEST_ARRANGEMENTS = 999


Dealt = Float64[ndarray, "arrangements wells"]
Products = Float64[ndarray, "wells wells"]


@dataclass(frozen=True)
class Trend:
    """How the place of a compound's wells changes with their dose.

    Args:
        spearman: Rank correlation of dose and place; None where it is not defined.
        p: Share of the ways to deal the doses that correlate as well or better; None where `spearman` is.
        smallest_p: What the best order would have got.
        wells: Number of wells that count.
    """

    spearman: float | None
    p: float | None
    smallest_p: float | None
    wells: int


def trend_along_axis(
    dose: Float64[ndarray, " wells"],
    place: Float64[ndarray, " wells"],
    plate: Int[ndarray, " wells"],
    *,
    most: int,
    seed: int,
    name: str,
) -> Trend:
    """Test whether places on an axis that these wells had no part in rise with the dose.

    Args:
        dose: Dose of each well of one compound.
        place: Their places; NaN where a well has none, and does not count.
        plate: Doses are dealt anew among the wells of a plate, or among all if no plate has two doses.
        most: Number of arrangements to sample where they are not all counted.
        seed: With `name` it decides the sample.
        name: Name of the compound.
    """
    is_placed = np.isfinite(place)
    dose, place, plate = dose[is_placed], place[is_placed], plate[is_placed]
    observed = row_spearman(dose[None], place[None])[0]
    if not np.isfinite(observed):
        return Trend(None, None, None, dose.size)
    dealt = dealt_doses(dose, plate, most=most, seed=seed, name=name)
    ranks = centred_ranks(place[None])[0]
    null = (dealt.values @ ranks) / np.linalg.norm(dealt.values[0]) / np.linalg.norm(ranks)
    return Trend(float(observed), dealt.p_value(null, observed), dealt.smallest_p, dose.size)


def trend_to_highest_dose(
    dose: Float64[ndarray, " wells"],
    products: Float64[ndarray, "wells wells"],
    plate: Int[ndarray, " wells"],
    *,
    most: int,
    seed: int,
    name: str,
) -> tuple[Trend, Float64[ndarray, " wells"]]:
    """Place the wells of a compound on the axis to its own highest dose, and test whether they rise with the dose.

    No well makes its own axis. It comes from the highest dose on other plates or, if that is on one plate, from its
    other wells; a highest dose of one well is itself placed on the axis to the second highest. All doses are dealt
    anew, the highest among them, and every well is placed again: so the test is exact though the axes are made of the
    wells that they judge.

    Args:
        dose: Dose of each well of one compound.
        products: Scalar products of all pairs of these wells, each less the negative controls of its plate.
        plate: Doses are dealt anew among the wells of a plate, or among all if no plate has two doses.
        most: Number of arrangements to sample where they are not all counted.
        seed: With `name` it decides the sample.
        name: Name of the compound.

    Returns:
        The trend, and the places: 0 like negative controls, 1 as far as the highest dose went; NaN for a well that
        nothing can place.
    """
    place = placing_rule(dose, plate)
    places = place(dose[None], products, plate)[0]
    observed = row_spearman(dose[None], places[None])[0]
    wells = int(np.isfinite(places).sum())
    if not np.isfinite(observed):
        return Trend(None, None, None, wells), places
    dealt = dealt_doses(dose, plate, most=most, seed=seed, name=name)
    null = row_spearman(dealt.values, place(dealt.values, products, plate), x_is_ranked=True)
    null = np.nan_to_num(null, nan=-1.0)
    return Trend(float(observed), dealt.p_value(null, observed), dealt.smallest_p, wells), places


def dealt_doses(
    dose: Float64[ndarray, " wells"], plate: Int[ndarray, " wells"], *, most: int, seed: int, name: str
) -> Arrangements:
    """Deal centred ranks of doses within plates; over plates where each has a single dose, so that there is a choice."""
    can_deal = any(np.unique(dose[plate == code]).size > 1 for code in np.unique(plate))
    block = plate if can_deal else np.zeros_like(plate)
    most = min(most, max(FEWEST_ARRANGEMENTS, MOST_ENTRIES // dose.size))
    return arrangements(centred_ranks(dose[None])[0], block, most=most, seed=seed, name=f"dose/{name}")


Rule = Callable[[Dealt, Products, Int[ndarray, " wells"]], Dealt]


def placing_rule(dose: Float64[ndarray, " wells"], plate: Int[ndarray, " wells"]) -> Rule:
    """Who may place a well; decided once, by the wells that the highest dose was really given to."""
    is_highest = dose == dose.max()
    if is_highest.sum() == 1:
        return placed_by_one
    return placed_by_other_plates if np.unique(plate[is_highest]).size > 1 else placed_by_other_wells


def placed_by_other_plates(doses: Dealt, products: Products, plate: Int[ndarray, " wells"]) -> Dealt:
    """Place each well by the highest dose on plates other than its own."""
    chosen = highest(doses)
    is_other = plate[:, None] != plate
    return in_lengths(chosen @ (products * is_other), chosen @ is_other.astype(np.float64), chosen, products)


def placed_by_other_wells(doses: Dealt, products: Products, _: Int[ndarray, " wells"]) -> Dealt:
    """Place each well by the highest dose, but itself."""
    chosen = highest(doses)
    # Two wells that place each other are a tie; to add a well and subtract it again would part them.
    total = chosen @ (products - np.diag(np.diag(products)))
    return in_lengths(total, chosen.sum(axis=1, keepdims=True) - chosen, chosen, products)


def placed_by_one(doses: Dealt, products: Products, _: Int[ndarray, " wells"]) -> Dealt:
    """Place each well by the only one of the highest dose, and that one by the second highest dose."""
    row, best = np.arange(len(doses)), doses.argmax(axis=1)
    length = np.diag(products)[best]
    places = np.asarray(products[best] / np.where(length > 0, length, 1)[:, None])
    below = doses.copy()
    below[row, best] = -np.inf
    second = highest(below)
    count = second.sum(axis=1)
    along = (second * products[best]).sum(axis=1) / count
    reach = np.einsum("aw,aw->a", second @ products, second) / count**2
    places[row, best] = along / np.where(reach > 0, reach, 1)
    return places


def highest(doses: Dealt) -> Dealt:
    """1 for wells of the highest dose, 0 for others."""
    return np.asarray(doses == doses.max(axis=1, keepdims=True), np.float64)


def in_lengths(total: Dealt, count: Dealt, chosen: Dealt, products: Products) -> Dealt:
    """Mean product with the wells that place a well, in squared lengths of the axis to all of the highest dose.

    One length for all: an axis of fewer wells is longer by its noise, and would put who is placed by it nearer to 0.
    """
    length = np.einsum("aw,aw->a", chosen @ products, chosen) / chosen.sum(axis=1) ** 2
    scaled = total / np.maximum(count, 1) / np.where(length > 0, length, 1)[:, None]
    return np.where(count > 0, scaled, np.nan)
