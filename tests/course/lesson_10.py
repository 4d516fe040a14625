import pandas as pd
from scipy.stats import beta

from helpers import course
from tests.course.tries import Tries


def needed(level, errors):
    n = errors + 1
    while beta.ppf(level, errors + 1, n - errors) >= 0.1:
        n += 1
    return n


seen = course.case("10-2")
best = seen.groupby("group")["right"].mean().idxmax()
mine = seen[seen["group"] == best]
answers = course.case("10-3")["table"]


def gap(code):
    rate = answers["y_pred"].eq(code).groupby(answers["group"]).mean()
    return abs(rate["A"] - rate["B"])


def over_people(wrong, person, group):
    frame = pd.DataFrame({"w": wrong, "p": person, "g": group})
    return frame.groupby(["g", "p"])["w"].mean().groupby("g").mean()


TRIES = {
    "10-1": Tries(
        [needed(0.95, 1), 46.0],
        [
            (11, "observed share"),
            (needed(0.95, 0), "without any error"),
            (needed(0.975, 1), "two-sided"),
            (45, "one more"),
            (4, "too small"),
        ],
    ),
    "10-2": Tries(
        [mine["right"].fillna(0).mean()],
        [
            (mine["right"].mean(), "table's number"),
            (mine["found"].mean(), "share of found faces"),
            (seen["right"].fillna(0).mean(), "over all groups"),
            (100 * mine["right"].fillna(0).mean(), "per cent"),
        ],
    ),
    "10-3": Tries(
        [gap(0)],
        [
            (gap(1), "index 1"),
            (gap(2), "not sure"),
            (answers.query("group == 'A'")["y_pred"].eq(0).mean(), "difference of two"),
            (-gap(0), "wrong sign"),
        ],
    ),
    "10-4": Tries(
        [over_people, lambda *each: over_people(*each).tolist()],
        [
            (lambda wrong, person, group: pd.Series(wrong).groupby(group).mean(), "over photographs"),
            (
                lambda wrong, person, group: over_people(pd.Series(wrong).groupby(person).transform("max"), person, group),
                "at least one",
            ),
            (lambda wrong, person, group: pd.Series(wrong).groupby([group, person]).mean(), "own shares"),
            (lambda *each: over_people(each[0], each[1], each[1] * 0).iloc[0], "one rate for all"),
        ],
    ),
}
