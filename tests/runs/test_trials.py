"""Results as JSON and back."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from mixln.records import from_json, to_json
from mixln.runs.profile import LayerProfile
from mixln.runs.trials import TrialResult
from tests.compare.records import result

PROFILE = LayerProfile(step=10, attention=(0.1, 1 / 3), feed_forward=(2e-8, 3e30))
WHOLE = replace(
    result("mix(0.25)", 3.25),
    train_curve=((1, 6.0), (10, 3.5)),
    eval_curve=((5, 4.0), (10, 3.25)),
    gradient_norms=(PROFILE,),
    residual_variance=(PROFILE, replace(PROFILE, step=20)),
)


def there_and_back(record):
    return from_json(TrialResult, json.loads(json.dumps(to_json(record), allow_nan=False)))


@pytest.mark.parametrize(
    "record",
    [
        WHOLE,
        result("pre", 3.0),
        result("post", None, status="failed", speed=None),
        replace(result("post", 9.0), status="stalled", reason="held-out loss 9.000 is no better than 7.0"),
    ],
    ids=["whole", "bare", "failed", "stalled"],
)
def test_a_result_comes_back_equal(record):
    assert there_and_back(record) == record


def test_what_is_not_finite_becomes_null_and_stays_so():
    diverged = replace(
        result("post", None),
        train_curve=((1, 6.0), (2, math.nan)),
        gradient_norms=(replace(PROFILE, attention=(math.inf, 1.0)),),
    )
    written = to_json(diverged)
    assert written["train_curve"] == [[1, 6.0], [2, None]]
    assert written["gradient_norms"][0]["attention"] == [None, 1.0]
    assert to_json(there_and_back(diverged)) == written


@pytest.mark.parametrize(("loss", "perplexity"), [(2.0, math.e**2), (None, None), (1e4, None)])
def test_perplexity_is_written_beside_the_loss(loss, perplexity):
    assert to_json(result("pre", loss))["perplexity"] == pytest.approx(perplexity)
