"""Win rates as they would be if both sides wrote alike: at equal length and style, or at equal length.

Each fits one model against its baseline alone, so a new checkpoint moves no other's number. Their error is that of a
bootstrap over prompts with the whole fit inside (`means.bootstrap_estimate`). Heavy libraries wait until they are needed.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# A fit that has not come to rest by then, or by then lies so far off, has no finite optimum: one side wins all of a kind.
NEWTON_STEPS, DIVERGED = 40, 25.0
LengthControl = Literal["v1", "noreg", "minimal"]
# Rows of the gamed set weigh so much together, as often as there are gamed models in it.
GAMED_WEIGHT, GAMED_MODELS = 0.2, 2


def equal_style_fit(outcomes: Array, features: Array) -> Array:
    """The coefficients of a logistic model of a win: intercept, then each feature, standardised over the rows.

    Args:
        outcomes: 1 for a win of the model, 0 for one of the baseline, shape (n_games,).
        features: By how much the model's answer has more of each, shape (n_games, n_features). One that is the same in all
            rows tells nothing: its coefficient is 0.

    Returns:
        Shape (1 + n_features,); NaN where the wins cannot be fitted, as when one side wins all.
    """
    import numpy as np

    found = np.full(1 + features.shape[1], math.nan)
    if len(outcomes) < 2 or outcomes.min() == outcomes.max():
        return found
    spread = features.std(axis=0, ddof=1)
    used = spread > 1e-12
    design = np.ones((len(outcomes), 1 + int(used.sum())))
    design[:, 1:] = ((features - features.mean(axis=0))[:, used]) / spread[used]
    # By Newton's method, as statsmodels would in ten times the time: there are thousands of fits in a bootstrap.
    fitted = np.zeros(design.shape[1])
    for _ in range(NEWTON_STEPS):
        won = 1 / (1 + np.exp(-design @ fitted))
        try:
            step = np.linalg.solve((design * (won * (1 - won))[:, None]).T @ design, design.T @ (outcomes - won))
        except np.linalg.LinAlgError:
            return found
        fitted += step
        if not np.abs(fitted).max() < DIVERGED:
            return found
        if np.abs(step).max() < 1e-9:
            found[:] = 0.0
            found[np.concatenate([[True], used])] = fitted
            return found
    return found


def equal_style_rate(outcomes: Array, features: Array) -> float:
    """The win rate at the mean difference in style, by `equal_style_fit`; NaN where it cannot be fitted.

    Source: arena-hard-auto's style control, whose pool of models is one model and its baseline here.
    """
    intercept = float(equal_style_fit(outcomes, features)[0])
    return 1 / (1 + math.exp(-intercept)) if math.isfinite(intercept) else math.nan


@dataclass(frozen=True)
class Gamed:
    """The answers of models that were told to be short, or long: they tell what length alone is worth.

    Attributes:
        preference: Of the gamed models' answers, shape (n_rows,).
        delta: Their differences in length, in standard deviations, shape (n_rows,).
        difficulty: Of their instructions, shape (n_rows,).
    """

    preference: Array
    delta: Array
    difficulty: Array


def equal_length_rate(
    preferences: Array,
    deltas: Array,
    *,
    form: LengthControl = "minimal",
    difficulty: Array | None = None,
    gamed: Gamed | None = None,
) -> float:
    """The win rate that is predicted where both answers are as long as each other.

    A logistic model without intercept on whether it is the model's own row (1 or 0), tanh of the difference in length in
    standard deviations, and the instruction's difficulty; an L1 penalty chosen by cross-validation over 5 splits.

    Args:
        preferences: How probable it is that the judge prefers the model's answer, shape (n_items,).
        deltas: Characters of the baseline's answer less those of the model's, shape (n_items,).
        form: `v1` is AlpacaEval's published one, with the rows of the gamed set; `noreg` is without them, `minimal`
            without the difficulty as well.
        difficulty: Of each instruction, shape (n_items,); for `v1` and `noreg`.
        gamed: The gamed set; for `v1`.

    Returns:
        NaN where there are fewer items than splits, or they differ in no way.

    Source: alpaca_eval 0.6.6, length_controlled_v1, length_controlled_noreg and length_controlled_minimal.
    """
    import numpy as np

    spread = deltas.std(ddof=1) if len(deltas) > 1 else 0.0
    if len(preferences) < 5 or not spread or preferences.max() - preferences.min() <= 0:
        return math.nan
    standard = deltas / spread
    own = np.ones(len(preferences))
    columns = [np.tanh(standard)] if form == "minimal" else [np.tanh(standard), _given(difficulty)]
    rows, target = np.column_stack([*columns, own]), preferences
    weights = None
    if form == "v1":
        assert gamed is not None, "v1 is fitted with the gamed set"
        theirs = np.column_stack([np.tanh(gamed.delta), gamed.difficulty, np.zeros(len(gamed.delta))])
        rows, target = np.vstack([theirs, rows]), np.concatenate([gamed.preference, preferences])
        weights = np.concatenate([np.full(len(theirs), GAMED_WEIGHT / GAMED_MODELS), own])
    coefficients = _penalised(rows, target, weights)
    at_zero = coefficients[-1] + (0.0 if form == "minimal" else coefficients[1] * _given(difficulty))
    return float(np.mean(1 / (1 + np.exp(-(at_zero + np.zeros(len(preferences)))))))


def _penalised(rows: Array, target: Array, weights: Array | None) -> Array:
    """Coefficients of a logistic model of shares, as scikit-learn fits it: each row twice, once for either outcome."""
    import numpy as np
    import sklearn
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GroupKFold

    n = len(target)
    share = np.concatenate([target, 1 - target])
    heavy = None if weights is None else np.concatenate([weights, weights])
    outcome = np.repeat([1, 0], n)

    def loss(truth: Array, predicted: Array, share: Array, heavy: Array | None = None) -> float:
        truth = np.where(truth == 1, share, 1 - share)
        predicted = np.clip(predicted, 1e-15, 1 - 1e-15)
        each = truth * np.log(predicted) + (1 - truth) * np.log(1 - predicted)
        return -float(np.mean(each if heavy is None else each * heavy))

    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scoring = make_scorer(loss, response_method="predict_proba", greater_is_better=False)
        model = LogisticRegressionCV(
            cv=GroupKFold(n_splits=5),
            scoring=scoring.set_score_request(share=True, heavy=True),
            random_state=123,
            penalty="l1",
            solver="liblinear",
            fit_intercept=False,
        ).set_fit_request(sample_weight=True)
        model.fit(
            np.vstack([rows, rows]),
            outcome,
            sample_weight=share if heavy is None else share * heavy,
            groups=np.tile(np.arange(n), 2),
            share=share,
            heavy=heavy,
        )
    found: Array = model.coef_[0]
    return found


def _given(difficulty: Array | None) -> Array:
    assert difficulty is not None, "all forms but `minimal` need the difficulty of each instruction"
    return difficulty
