"""What is usual: what is told, what is not, and that units and offsets do not matter."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_platform.domain.profile import QUANTILES, FeatureProfile
from feature_platform.quality.usual import compare_distribution, compare_missing, compare_volume


def numbers(low: float, high: float) -> FeatureProfile:
    """Evenly spread from low to high."""
    return FeatureProfile(nulls=0, quantiles=tuple(low + (high - low) * point for point in QUANTILES))


USUAL = [numbers(0 + drift, 100 + drift) for drift in (0, 1, -1, 2, 0, -2)]


@pytest.mark.parametrize(
    ("profile", "told"),
    [
        (numbers(1, 101), False),
        (numbers(20, 120), False),  # a fifth of the range, less than tolerance allows
        (numbers(60, 160), True),
        (numbers(0, 6000), True),  # minutes have become seconds
        (numbers(50, 50), True),  # one value where there were many, though the middle is right
        (replace(numbers(0, 100), quantiles=()), None),  # nothing but NULL: what `nulls` is about
    ],
)
def test_drift_of_numbers(profile, told):
    found = compare_distribution(profile, USUAL, 0.25, rows=1000)
    assert (found and found.told) == told


@settings(max_examples=30, deadline=None)
@given(
    factor=st.floats(0.001, 1000),
    offset=st.floats(-1000, 1000),
    low=st.floats(-200, 200),
    width=st.floats(1, 300),
)
def test_drift_does_not_depend_on_the_unit(factor, offset, low, width):
    def scaled(one: FeatureProfile) -> FeatureProfile:
        return replace(one, quantiles=tuple(offset + factor * point for point in one.quantiles))

    profile = numbers(low, low + width)
    found = compare_distribution(profile, USUAL, 0.25, rows=1000)
    again = compare_distribution(scaled(profile), [scaled(one) for one in USUAL], 0.25, rows=1000)
    assert again.observed == pytest.approx(found.observed, rel=1e-6, abs=1e-6)
    assert again.allowed == pytest.approx(found.allowed, rel=1e-6, abs=1e-6)


def test_drift_of_texts_and_booleans():
    usual = [FeatureProfile(nulls=0, distinct=9, buckets=(5 + i, 3, 2, 0)) for i in range(3)]
    assert not compare_distribution(
        FeatureProfile(nulls=0, distinct=8, buckets=(4, 3, 3, 1)), usual, 0.25, rows=900
    ).told
    assert compare_distribution(FeatureProfile(nulls=0, distinct=8, buckets=(0, 0, 2, 9)), usual, 0.25, rows=900).told
    flags = [FeatureProfile(nulls=0, distinct=2, mean=share) for share in (0.1, 0.12, 0.11)]
    assert not compare_distribution(FeatureProfile(nulls=0, distinct=2, mean=0.2), flags, 0.25, rows=900).told
    all_true = compare_distribution(FeatureProfile(nulls=0, distinct=1, mean=1.0), flags, 0.25, rows=900)
    assert (all_true.told, bool(all_true.reason)) == (True, True)


def test_what_is_rare_may_be_absent():
    rare = [FeatureProfile(nulls=0, distinct=2, mean=share) for share in (0.002, 0.004, 0.003)]
    assert not compare_distribution(FeatureProfile(nulls=0, distinct=1, mean=0.0), rare, 0.25, rows=900).told
    mostly_zero = [replace(numbers(0, 1), quantiles=(0,) * 6 + (0.1, 0.2, 0.3 + i / 100)) for i in range(3)]
    assert not compare_distribution(numbers(0, 0), mostly_zero, 0.25, rows=16).told


def test_what_was_always_the_same_is_not_judged():
    assert compare_distribution(numbers(0, 1), [numbers(0, 0)] * 20, 0.25, rows=1000) is None


def test_a_view_that_varies_is_not_told_so():
    varying = [numbers(0 + 60 * i, 100 + 60 * i) for i in range(6)]
    assert not compare_distribution(numbers(500, 600), varying, 0.25, rows=1000).told


@pytest.mark.parametrize(("rows", "told"), [(100, False), (60, False), (40, True), (160, True), (0, True)])
def test_volume(rows, told):
    assert compare_volume(rows, [100, 104, 98, 101], 0.5).told == told


def test_an_empty_batch_is_told_however_much_volume_varies_unless_there_were_others():
    assert compare_volume(0, [1, 500, 900, 20], 0.5).reason
    assert not compare_volume(0, [0, 500, 900, 20], 0.5).told


def test_small_batches_vary_by_chance():
    assert not compare_volume(9, [4, 4, 4, 4], 0.5).told
    assert compare_volume(900, [400, 400, 400, 400], 0.5).told
    assert compare_missing(0.2, [0.0] * 14, 0.1, rows=1000).told
    assert not compare_missing(0.2, [0.0] * 14, 0.1, rows=5).told
    assert compare_missing(1.0, [0.0] * 14, 0.1, rows=5).told
    assert not compare_missing(0.0, [0.5] * 14, 0.1, rows=1000).told
