import numpy as np
import pytest
from scipy.stats import norm

from helpers.bias import compare
from helpers.bias.people import change_of_rates, mean_of_people, rate_of_people


def test_a_change_of_rates_is_newcombes_interval_where_every_image_is_its_own_person():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    first = np.where(rng.random(300) < 0.3, 1 - y, y)
    second = np.where(rng.random(300) < 0.1, 1 - first, first)
    found = change_of_rates(first == y, second == y, np.arange(300), 0.9)
    table = compare(y, first, second, np.zeros(300, int), confidence=0.9).overall.set_index("statistic")
    np.testing.assert_allclose(found, table.loc["accuracy", ["change", "low", "high"]].to_numpy(float))


def test_images_that_repeat_a_person_add_nothing():
    rng = np.random.default_rng(1)
    before, after = rng.random(80) < 0.4, rng.random(80) < 0.6
    values = rng.normal(0, 0.3, 80).clip(-1, 1)
    people = np.arange(80)
    four = lambda column: np.repeat(column, 4)
    for function, columns in ((mean_of_people, [values]), (change_of_rates, [before, after]), (rate_of_people, [before])):
        alone = function(*columns, people, 0.95)
        repeated = function(*map(four, columns), four(people), 0.95)
        np.testing.assert_allclose(repeated, alone, atol=0.006)  # Student's t for the normal's critical value
        careless = function(*map(four, columns), np.arange(320), 0.95)
        assert careless[2] - careless[1] < 0.6 * (alone[2] - alone[1])


def test_no_change_reaches_to_both_sides():
    column = np.arange(50) % 3 == 0
    change, low, high = change_of_rates(column, column, np.arange(50), 0.95)
    assert change == 0 and low <= 0 <= high
    assert change_of_rates(np.zeros(40, bool), np.ones(40, bool), np.arange(40), 0.95)[0] == pytest.approx(1)


@pytest.mark.parametrize("each", [1, 4])
@pytest.mark.parametrize("rates", [(0.4, 0.25), (0.3, 0.05), (0.2, 0.2)])
def test_intervals_of_a_change_cover_it(each, rates):
    rng = np.random.default_rng(2)
    people, covered = np.repeat(np.arange(60), each), 0
    for _ in range(500):
        # What a person's images share, and what the two models share: thresholds of correlated normal variables.
        shared, own = rng.normal(size=60)[people], rng.normal(size=60 * each)
        noise = [0.6 * shared + 0.5 * own + np.sqrt(0.39) * rng.normal(size=60 * each) for _ in range(2)]
        before, after = (z < norm.ppf(rate) for z, rate in zip(noise, rates, strict=True))
        _, low, high = change_of_rates(before, after, people, 0.95)
        covered += low <= rates[1] - rates[0] <= high
    assert covered / 500 > 0.92
