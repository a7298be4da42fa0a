"""Average precision against its laws, against brute force and scikit-learn."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from cellvim.evaluate import retrieval
from cellvim.evaluate.precision import average_precision, expected_average_precision
from cellvim.evaluate.questions import WellLabels, replicates, shared_labels
from cellvim.evaluate.retrieval import QueryScores, Space, score_queries

TASKS = ("activity", "distinctiveness", "replicate_retrieval")
EXACT = 1e-12
"""Sums of the same few fractions in another order."""

# Whole millionths: either apart or the same, never within the width of a tie.
similarities = arrays(np.int64, 12, elements=st.integers(-(10**6), 10**6), unique=True).map(
    lambda n: n / 10**6
)
relevances = arrays(bool, 12).filter(np.any)


def random_screen(seed: int, *, wells: int = 48, features: int = 6) -> tuple[np.ndarray, WellLabels]:
    """Three plates, seven perturbations (one of them the control, some wells without any), in random order."""
    rng = np.random.default_rng(seed)
    perturbation = rng.integers(-1, 7, wells)
    labels = WellLabels(rng.integers(0, 3, wells), perturbation, perturbation == 0)
    return rng.normal(size=(wells, features)).astype(np.float32), labels


def score(features: np.ndarray, labels: WellLabels, task: str) -> QueryScores:
    return score_queries([Space.whole(features)], replicates(labels, task))


def by_definition(features: np.ndarray, labels: WellLabels, task: str) -> dict[int, tuple[float, int, int]]:
    """The table of the design page, one well at a time, judged by scikit-learn."""
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    found = {}
    for query in range(len(unit)):
        if labels.is_control[query] or labels.perturbation[query] < 0:
            continue
        relevant, similarity = [], []
        for other in range(len(unit)):
            if other == query or (labels.perturbation[other] < 0):
                continue
            is_same = labels.perturbation[other] == labels.perturbation[query]
            is_near = labels.plate[other] == labels.plate[query]
            is_control = labels.is_control[other]
            is_positive = is_same and (task != "replicate_retrieval" or not is_near)
            is_negative = {
                "activity": is_control and is_near,
                "distinctiveness": not is_same and not is_control and is_near,
                "replicate_retrieval": not is_same,
            }[task]
            if is_positive or is_negative:
                relevant.append(is_positive)
                similarity.append(unit[query] @ unit[other])
        if any(relevant) and not all(relevant):
            value = float(average_precision_score(relevant, similarity))
            found[query] = (value, sum(relevant), len(relevant))
    return found


@given(similarities, relevances)
def test_agrees_with_scikit_learn_when_no_ties(similarity: np.ndarray, relevant: np.ndarray) -> None:
    assert average_precision(similarity, relevant) == pytest.approx(
        average_precision_score(relevant, similarity), abs=EXACT
    )


@given(relevances)
def test_a_collapsed_embedding_gets_the_worst_order(relevant: np.ndarray) -> None:
    n, k = relevant.size, int(relevant.sum())
    worst = np.mean([i / (n - k + i) for i in range(1, k + 1)])
    assert average_precision(np.zeros(n), relevant) == pytest.approx(worst, abs=EXACT)


@given(seed=st.integers(0, 2**31))
def test_every_query_scores_as_the_reference_says_ties_included(seed: int) -> None:
    """Features of few values, so that many wells tie up to rounding."""
    labels = random_screen(seed)[1]
    features = np.random.default_rng(seed).integers(-1, 2, (48, 3)) * np.array([0.1, 0.7, 1.3])
    unit = retrieval.unit_rows(features)
    scores = score(features, labels, "activity")
    for query, found in zip(scores.unit, scores.average_precision, strict=True):
        relevant = labels.is_treated & (labels.perturbation == labels.perturbation[query])
        asked = relevant | (labels.is_control & (labels.plate == labels.plate[query]))
        asked[query] = False
        assert found == pytest.approx(
            average_precision((unit @ unit[query])[asked], relevant[asked]), abs=EXACT
        )


def test_similarities_that_only_rounding_parts_are_a_tie() -> None:
    assert average_precision(np.array([0.5, 0.5 - 1e-15]), np.array([True, False])) == 0.5


def test_no_relevant_candidate_is_an_error() -> None:
    with pytest.raises(ValueError, match="undefined without a relevant candidate"):
        average_precision(np.array([0.5]), np.array([False]))


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_every_task_is_its_definition(task: str, seed: int) -> None:
    features, labels = random_screen(seed)
    scores = score(features, labels, task)
    expected = by_definition(features, labels, task)

    assert scores.unit.tolist() == sorted(expected)
    found = zip(scores.average_precision, scores.positives, scores.total, strict=True)
    np.testing.assert_allclose(list(found), [expected[well] for well in scores.unit], atol=EXACT)
    assert scores.dropped == int(labels.is_treated.sum()) - len(expected)


@pytest.mark.parametrize("task", TASKS)
def test_blocks_do_not_change_the_result(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = random_screen(1)
    whole = score(features, labels, task)
    monkeypatch.setattr(retrieval, "BLOCK_ENTRIES", 100)
    cut = score(features, labels, task)
    np.testing.assert_array_equal(whole.average_precision, cut.average_precision)


@pytest.mark.parametrize("task", TASKS)
@given(seed=st.integers(0, 2**31), data=st.data())
def test_names_and_order_of_wells_mean_nothing(task: str, seed: int, data: st.DataObject) -> None:
    features, labels = random_screen(seed)
    order = np.array(data.draw(st.permutations(range(len(features)))))
    renamed = np.array([-1, *data.draw(st.permutations(range(7)))])
    other = WellLabels(labels.plate[order], renamed[labels.perturbation[order] + 1], labels.is_control[order])
    before = score(features, labels, task)
    after = score(features[order], other, task)

    places = {well: place for place, well in enumerate(order[after.unit])}
    matched = [after.average_precision[places[well]] for well in before.unit]
    np.testing.assert_allclose(matched, before.average_precision, atol=EXACT)


@given(seed=st.integers(0, 2**31))
def test_rotating_and_scaling_all_wells_means_nothing(seed: int) -> None:
    features, labels = random_screen(seed)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0]
    before = score(features.astype(np.float64), labels, "activity")
    after = score(features @ rotation * 7, labels, "activity")
    np.testing.assert_allclose(after.average_precision, before.average_precision, atol=EXACT)


@given(seed=st.integers(0, 2**31))
def test_a_copy_of_every_treated_well_is_found_first(seed: int) -> None:
    """Duplicated wells are each other's best match: no average precision can fall below 1 / P."""
    features, labels = random_screen(seed)
    twice = np.concatenate([np.arange(48), np.flatnonzero(labels.is_treated)])
    doubled = WellLabels(labels.plate[twice], labels.perturbation[twice], labels.is_control[twice])
    scores = score(features[twice], doubled, "activity")
    assert (scores.average_precision >= 1 / scores.positives - EXACT).all()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("value", [0.0, 0.1, -3.7e5])
def test_equal_embeddings_score_at_the_bottom(task: str, value: float) -> None:
    """Also where the two products that measure positives and negatives round differently."""
    labels = random_screen(5)[1]
    features = np.full((48, 37), value, np.float32) * np.linspace(1, 2, 37, dtype=np.float32)
    scores = score(features, labels, task)
    worst = [
        np.mean([k / (n - p + k) for k in range(1, p + 1)])
        for p, n in zip(scores.positives, scores.total, strict=True)
    ]
    np.testing.assert_allclose(scores.average_precision, worst, atol=EXACT)
    assert (scores.normalized < 0).all()


def test_wells_alike_up_to_their_length_tie() -> None:
    """A control that points the same way as the replicate ranks before it, whatever its length rounds to."""
    direction = np.random.default_rng(0).normal(size=101)
    features = np.stack([direction + 1, direction, direction / 3, direction * 7])
    labels = WellLabels(np.zeros(4, int), np.array([1, 1, 0, 0]), np.array([False, False, True, True]))
    scores = score(features, labels, "activity")
    assert scores.average_precision.tolist() == pytest.approx([1 / 3, 1 / 3])


def test_each_control_is_judged_in_its_own_space() -> None:
    """With the same features in every space, splitting the controls over spaces changes nothing."""
    features, labels = random_screen(2)
    parts = [Space(features, np.arange(48) % 3 == part) for part in range(3)]
    whole = score(features, labels, "activity")
    split = score_queries(parts, replicates(labels, "activity"))
    np.testing.assert_allclose(split.average_precision, whole.average_precision, atol=EXACT)


@pytest.mark.parametrize(("positives", "total"), [(1, 2), (1, 9), (2, 5), (3, 8), (7, 8), (4, 4)])
def test_expected_average_precision_is_the_mean_over_all_orders(positives: int, total: int) -> None:
    from cellvim.evaluate.significance import enumerated_average_precision

    expected = enumerated_average_precision(positives, total).mean()
    value = expected_average_precision(np.array([positives]), np.array([total]))[0]
    assert value == pytest.approx(expected, abs=EXACT)


def test_replicates_at_the_same_position_are_neither_found_nor_in_the_way() -> None:
    """Well 0 asks: its replicate 1 lies at its own position on another plate, 2 elsewhere; 3 is another drug."""
    features = np.array([[1, 0], [1, 0.1], [1, 0.3], [1, 0.2]])
    labels = WellLabels(np.array([0, 1, 1, 1]), np.array([1, 1, 1, 2]), np.zeros(4, bool))
    anywhere = score(features, labels, "replicate_retrieval")
    position = np.array([5, 5, 6, 7])
    elsewhere = score_queries(
        [Space.whole(features)], replicates(labels, "replicate_retrieval", position=position)
    )

    assert anywhere.average_precision[0] == pytest.approx((1 + 2 / 3) / 2)
    assert (anywhere.positives[0], anywhere.total[0]) == (2, 3)
    assert elsewhere.average_precision[0] == pytest.approx(1 / 2)
    assert (elsewhere.positives[0], elsewhere.total[0]) == (1, 2)
    # The replicate at its position has nobody left to find.
    assert elsewhere.unit.tolist() == [0, 2]


@given(seed=st.integers(0, 2**31))
def test_positions_without_replicates_change_nothing(seed: int) -> None:
    features, labels = random_screen(seed)
    question = replicates(labels, "replicate_retrieval", position=np.arange(48))
    found = score_queries([Space.whole(features)], question)
    np.testing.assert_array_equal(
        found.average_precision, score(features, labels, "replicate_retrieval").average_precision
    )


@given(seed=st.integers(0, 2**31), columns=st.integers(1, 20))
def test_all_rows_are_searched_as_each_would_be(seed: int, columns: int) -> None:
    """Among few different numbers, so that values equal entries; and where all that counts is infinitely far."""
    rng = np.random.default_rng(seed)
    ascending = np.sort(rng.choice([-np.inf, 0.1, 0.2, 0.3], (5, columns)), axis=1)
    row, value = rng.integers(0, 5, 30), rng.choice([0.05, 0.1, 0.2, 0.25, 0.4], 30)
    expected = [np.searchsorted(ascending[at], one) for at, one in zip(row, value, strict=True)]
    assert retrieval.smaller_in_row(ascending, row, value).tolist() == expected


@pytest.mark.parametrize("task", TASKS)
def test_profiles_that_say_nothing_are_at_chance(task: str) -> None:
    """On average over 30 screens of white noise, within four standard errors."""
    found = []
    for seed in range(30):
        features, labels = random_screen(seed, wells=90)
        found.append(score(features, labels, task).normalized.mean())
    assert abs(np.mean(found)) < 4 * np.std(found, ddof=1) / len(found) ** 0.5
    assert np.std(found) < 0.1


def test_memory_holds_blocks_and_never_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,500 wells of three perturbations: all similarities would take 18 MB, all positives 6 MB."""
    monkeypatch.setattr(retrieval, "BLOCK_ENTRIES", 2**14)
    labels = WellLabels(np.arange(1500) % 10, np.arange(1500) % 3, np.zeros(1500, bool))
    features = np.random.default_rng(0).normal(size=(1500, 4))
    tracemalloc.start()
    score(features, labels, "replicate_retrieval")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6


def test_memory_is_bounded_where_every_unit_has_many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 perturbations with 20 of 40 labels each: pairs of units of a common label, one by one, take 14 MB and more."""
    monkeypatch.setattr(retrieval, "BLOCK_ENTRIES", 2**14)
    rng = np.random.default_rng(0)
    labels = [tuple(f"l{code}" for code in rng.choice(40, 20, replace=False)) for _ in range(300)]
    question = shared_labels(labels, np.arange(300))[0]
    features = rng.normal(size=(300, 4))
    tracemalloc.start()
    score_queries([Space.whole(features)], question)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6
