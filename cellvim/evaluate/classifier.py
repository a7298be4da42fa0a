"""The linear classifier of the probes, trained on all folds but the one it predicts."""

import warnings

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy import ndarray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

MOST_ITERATIONS = 500
FEWEST_ITERATIONS = 30
# Products of wells, features and labels that a fit may take: some four seconds of one core.
WORK = 4e10


def predict_held_out(
    features: Float[ndarray, "wells features"], label: Int[ndarray, " wells"], fold: Int[ndarray, " wells"]
) -> tuple[Int[ndarray, " wells"], int]:
    """Predict each of two folds or more from all others; also the number of folds that did not converge."""
    predicted = np.empty_like(label)
    unconverged = 0
    for number in np.unique(fold):
        is_test = fold == number
        if np.unique(label[~is_test]).size < 2:
            predicted[is_test] = label[~is_test][0]
            continue
        predicted[is_test], is_converged = fit_and_predict(
            features[~is_test], label[~is_test], features[is_test]
        )
        unconverged += not is_converged
    return predicted, unconverged


def fit_and_predict(
    train: Float[ndarray, "train features"],
    label: Int[ndarray, " train"],
    test: Float[ndarray, "test features"],
) -> tuple[Int[ndarray, " test"], bool]:
    """Multinomial logistic regression with a ridge, on features standardised by the training wells."""
    x, y = standardized(train, test)
    # A ridge does not mind rotation: with fewer wells than features, the wells' own axes say the same in less.
    if x.shape[0] < x.shape[1]:
        axes = np.linalg.svd(x, full_matrices=False)[2]
        x, y = x @ axes.T, y @ axes.T
    iterations = most_iterations(*x.shape, labels=np.unique(label).size)
    # One thread: these fits are many and small, and two threads that wait for each other took 60 times as long.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model = LogisticRegression(C=1.0, max_iter=iterations).fit(x, label)
    is_converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return np.asarray(model.predict(y)), is_converged


def most_iterations(wells: int, features: int, *, labels: int) -> int:
    """Iterations that a fit may take, fewer where each costs more; ten or so are usual on whitened profiles."""
    affordable = int(WORK / max(1, wells * features * labels))
    return min(MOST_ITERATIONS, max(FEWEST_ITERATIONS, affordable))


def standardized(
    train: Float[ndarray, "train features"], test: Float[ndarray, "test features"]
) -> tuple[Float32[ndarray, "train features"], Float32[ndarray, "test features"]]:
    """Scale features by training wells; in float32, in which a fit takes half the time."""
    scaler = StandardScaler().fit(train.astype(np.float64))
    scaled = [scaler.transform(part.astype(np.float64)).astype(np.float32) for part in (train, test)]
    return scaled[0], scaled[1]
