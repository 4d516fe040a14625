"""Relevance by region and group: sums by hand, planted differences, tests that keep their level, and what is refused."""

import importlib

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import helpers.attribution
from helpers.attribution import attribute, evaluate, quality, regions, shift
from helpers.attribution.group_result import judged
from helpers.attribution.regions import areas, region_shares
from helpers.bias.by_people import Draws, Members, difference_test, differences, estimates, zero_test
from helpers.data import load_faces

QUICK = {"n_boot": 200, "n_permutations": 999}


def planted(per_group=30, seed=0):
    """Maps of three groups; the third's lie 2.5 times as much on the top rows. The third region is nowhere."""
    rng = np.random.default_rng(seed)
    maps = rng.exponential(size=(3 * per_group, 8, 8)) - 0.3
    group = np.repeat(np.array(["a", "b", "c"]), per_group)
    maps[group == "c", :2] *= 2.5
    masks = {name: np.zeros((8, 8), bool) for name in ("top", "left", "nothing")}
    masks["top"][:2] = True
    masks["left"][2:, :3] = True
    return maps, masks, group


def test_the_verb_and_its_module_share_a_name():
    module = importlib.import_module("helpers.attribution.regions")
    assert module.regions is regions and helpers.attribution.regions is regions
    maps, masks, group = planted()
    assert helpers.attribution.regions(maps, masks, group, **QUICK).confidence == 0.95


def test_shares_by_hand():
    maps = np.array([[[4.0, -8.0, 0.0], [2.0, 0.0, 2.0]]])
    masks = {"a": np.array([[True, True, False], [True, False, False]]), "none": np.zeros((2, 3), bool)}
    for relevance, expected in (("positive", 6 / 8), ("absolute", 14 / 16), ("negative", 1.0)):
        found = region_shares(maps, masks, relevance)
        assert found[0, 0] == pytest.approx(expected) and np.isnan(found[0, 1])
    assert areas(masks, 1)[0, 0] == 0.5
    every = np.stack([mask[None] for mask in masks.values()])
    by_image = region_shares(maps, dict(zip(masks, every, strict=True)))
    np.testing.assert_array_equal(by_image, region_shares(maps, masks))
    undefined = np.array([np.full((2, 3), -1.0), np.full((2, 3), np.nan), np.full((2, 3), np.inf)])
    assert np.isnan(region_shares(undefined, masks)).all()


def test_a_map_without_preference_has_density_one_and_shares_like_areas():
    maps, masks, group = planted()
    found = regions(np.ones_like(maps), masks, group, **QUICK).by_group
    there = found[(found.region != "nothing")]
    np.testing.assert_allclose(there[there.measure == "density"].value, 1)
    assert there[(there.measure == "share") & (there.region == "top")].value.unique() == pytest.approx([0.25])
    assert found[found.region == "nothing"][["value", "low", "high"]].isna().all(axis=None)


def test_what_must_not_matter():
    maps, masks, group = planted()
    first = regions(maps, masks, group, **QUICK)
    brighter = maps * np.random.default_rng(1).uniform(1, 9, (len(maps), 1, 1))
    each = [{name: mask for name, mask in masks.items()}] * len(maps)
    same = regions(torch.tensor(brighter), each, pd.Series(group), identity=np.arange(len(maps)), **QUICK)
    pd.testing.assert_frame_equal(first.by_group, same.by_group)
    pd.testing.assert_frame_equal(first.differences, same.differences)
    renamed = regions(maps, masks, np.searchsorted(["a", "b", "c"], group), groups=["a", "b", "c"], **QUICK)
    pd.testing.assert_frame_equal(first.by_group, renamed.by_group)
    order = np.random.default_rng(2).permutation(len(maps))
    turned = regions(maps[order], masks, group[order], **QUICK)
    columns = ["group", "region", "value", "n"]
    pd.testing.assert_frame_equal(first.by_group[columns], turned.by_group[columns])
    np.testing.assert_allclose(turned.differences.p, first.differences.p, atol=0.06, rtol=0.2)


def test_a_group_that_is_looked_at_elsewhere_is_found_and_only_there():
    maps, masks, group = planted()
    found = regions(maps, masks, group)
    table = found.differences.set_index(["region", "group", "other"])
    assert set(table.index[table.verdict == "differs"]) == {
        (region, name, "c")
        for region in ("top", "left")  # what is more above is less elsewhere
        for name in "ab"
    }
    assert (table.loc[("top", "a", "c"), ["difference", "high"]] < 0).all()
    assert (table.loc["nothing"].verdict == "undefined").all() and table.loc["nothing"].p_holm.isna().all()
    assert "4 of 9 differences beyond noise: top" in repr(found) and "a − c" in repr(found)
    assert any("no image has a pixel of nothing" == note for note in found.notes)
    table = found.by_group[found.by_group.measure == "share"].set_index(["group", "region"])
    by_hand = region_shares(maps[group == "c"], masks)[:, 0]
    assert table.loc[("c", "top"), "value"] == pytest.approx(by_hand.mean())
    normal = stats.t.interval(0.95, 29, by_hand.mean(), stats.sem(by_hand))
    assert table.loc[("c", "top"), ["low", "high"]].tolist() == pytest.approx(normal, abs=0.01)
    assert "| group |" in found.to_markdown() and "<table" in found._repr_html_()


def test_correct_against_wrong():
    maps, masks, group = planted(40)
    right = np.tile([True, True, False, True], 30)
    maps[~right & (group == "b"), :2] *= 4
    found = regions(maps, masks, group, correct=right)
    table = found.outcomes.set_index(["group", "region"])
    assert table.loc[("b", "top"), "verdict"] == "differs" and table.loc[("b", "top"), "difference"] < -0.1
    assert (table.loc[["a", "c"]].verdict != "differs").all()
    assert table.loc[("b", "top"), ["n_correct", "n_wrong"]].tolist() == [30, 10]
    mean = found.by_group.query("predictions == 'wrong' and group == 'b' and region == 'top' and measure == 'share'").value.item()
    assert mean == pytest.approx(region_shares(maps[~right & (group == "b")], masks)[:, 0].mean())
    assert regions(maps, masks, group, **QUICK).outcomes is None


def test_the_test_is_scipys_where_all_ways_are_gone_through():
    rng = np.random.default_rng(0)
    values, first = rng.normal(size=(9, 3)) * [1, 5, 1e-9] + [0, 100, 0], np.arange(9) < 4
    found = difference_test(values, first, np.arange(9), 10_000, 0)
    welch = lambda x, y, axis: np.abs(stats.ttest_ind(x, y, axis=axis, equal_var=False).statistic)
    theirs = stats.permutation_test((values[:4], values[4:]), welch, n_resamples=np.inf, alternative="greater", axis=0)
    np.testing.assert_allclose(found, theirs.pvalue)
    drawn = difference_test(values, first, np.arange(9), 100, 0)  # 126 ways exist
    np.testing.assert_allclose(drawn, theirs.pvalue, atol=0.15)
    signs = zero_test(values - [0, 100, 0], Members(np.zeros(9, int), ("all",), np.arange(9)), Draws())
    mean = lambda x, axis: np.abs(x.mean(axis))
    theirs = stats.permutation_test(
        (values - [0, 100, 0],), mean, permutation_type="samples", n_resamples=np.inf, alternative="greater", axis=0
    )
    np.testing.assert_allclose(signs[0], theirs.pvalue)


def test_holm_by_hand():
    table = pd.DataFrame({"method": ["x", "x", "x", "y"], "p": [0.02, np.nan, 0.03, 0.001]})
    found = judged(table, {"y": "it does not see the model"}, 0.95)
    np.testing.assert_allclose(found.p_holm, [0.04, np.nan, 0.04, np.nan])  # y is no hypothesis
    assert found.verdict.tolist() == ["differs", "undefined", "differs", "not trusted"]
    assert found.reason.tolist()[3] == "it does not see the model"
    assert judged(table, {}, 0.95).p_holm.tolist() == pytest.approx([0.04, np.nan, 0.04, 0.003], nan_ok=True)


def rejected(values, first, person, level=0.05, ways=499):
    return (difference_test(values, first, person, ways, 0) <= level).mean()


def test_the_error_rate_is_the_level():
    """Each column is a simulation of its own, in which the groups are alike."""
    rng = np.random.default_rng(0)
    highest = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 3000)
    skewed = rng.exponential(size=(30, 3000)) ** 2
    assert 0.03 < rejected(skewed, np.arange(30) < 8, np.arange(30)) < highest
    wider = rng.normal(size=(60, 3000)) * np.where(np.arange(60) < 12, 4, 1)[:, None]  # equal means, and that is the question
    assert rejected(wider, np.arange(60) < 12, np.arange(60)) < highest + 0.015
    holes = np.where(rng.random(skewed.shape) < 0.3, np.nan, skewed)
    assert 0.03 < rejected(holes, np.arange(30) < 12, np.arange(30)) < highest


def test_images_of_one_person_are_no_independent_evidence():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(8):
        person = np.repeat(np.arange(20), rng.integers(1, 12, 20))
        values = rng.normal(size=(20, 400))[person] + 0.3 * rng.normal(size=(len(person), 400))
        first = person < 9
        often = rng.random(len(person)) < np.where(person % 2 == 0, 0.8, 0.2)  # many are in both groups, not equally often
        shares.append([rejected(values, side, who) for side in (first, often) for who in (np.arange(len(person)), person)])
    alone, people, alone_mixed, people_mixed = np.mean(shares, 0)
    assert alone > 0.3 and alone_mixed > 0.1  # what ignoring people does
    assert 0.035 < people < 0.065 and 0.03 < people_mixed < 0.075
    members = Members(first.astype(int), ("no", "yes"), person)
    alone = Members(members.code, members.names, np.arange(len(person)))
    found, naive = (estimates(values, each, Draws(n_boot=400)) for each in (members, alone))
    cover = lambda table: ((table.low <= 0) & (table.high >= 0)).mean()
    three = Members(np.zeros(9, int), ("all",), np.repeat(np.arange(3), 3))
    values_of_three = rng.normal(size=(3, 1000))[three.person] + 0.3 * rng.normal(size=(9, 1000))
    assert cover(estimates(values_of_three, three, Draws(n_boot=200))) > 0.92
    assert cover(found) > 0.88 > 0.75 > cover(naive)
    gaps = differences(values, Members(often.astype(int), ("no", "yes"), person), Draws(n_boot=400, n_permutations=99))
    assert cover(gaps) > 0.88


def test_intervals_hold_what_they_promise():
    rng = np.random.default_rng(0)
    values = np.r_[rng.exponential(size=(14, 2000)), rng.normal(1, 2, size=(25, 2000))]
    members = Members(np.repeat([0, 1], [14, 25]), ("few", "more"), np.arange(39))
    found = estimates(values, members, Draws(n_boot=1000))
    cover = ((found.low <= 1) & (found.high >= 1)).groupby(found.group).mean()
    assert cover["few"] > 0.9 and 0.935 < cover["more"] < 0.975
    gaps = differences(values, members, Draws(n_boot=1000, n_permutations=9))
    assert 0.93 < ((gaps.low <= 0) & (gaps.high >= 0)).mean() < 0.985
    hits = np.ones((10, 1))
    rates = estimates(hits, Members(np.zeros(10, int), ("all",), np.arange(10)), Draws(), True)
    assert (rates.value.item(), rates.high.item()) == (1, 1) and 0.69 < rates.low.item() < 0.73  # Wilson: ten hits prove no 100 %
    both = differences(np.ones((20, 1)), Members(np.repeat([0, 1], 10), ("a", "b"), np.arange(20)), Draws(), True)
    assert both.low.item() < -0.2 and both.high.item() > 0.2 and both.p.item() == 1


def test_limits_of_shares_are_shares():
    maps = np.zeros((3, 2, 2))
    maps[:, 0, 0], maps[2, 1, 1] = 1, 9
    found = regions(maps, {"corner": np.eye(2) * [[1], [0]]}, ["a"] * 3, **QUICK).by_group.set_index("measure")
    assert found.low.tolist() == [0, 0] and found.high["share"] == 1 and found.high["density"] > 4


class LooksBy(torch.nn.Module):
    """Sees the top of pictures whose corner is bright and the left of others; once mended, the top of all."""

    def __init__(self, masks, mended=False):
        super().__init__()
        self.top, self.left = (torch.tensor(masks[name]).float() for name in ("top", "left"))
        self.mended = mended

    def forward(self, x):
        bright = (x[:, 0, 7, 7] > 0.5).float()[:, None, None]
        where = self.top if self.mended else bright * self.top + (1 - bright) * self.left
        z = (x.mean(1) * where).sum((1, 2))
        return torch.stack([-z, z], 1)


@pytest.mark.parametrize("method", ["gradient_input", "occlusion"])
def test_a_model_that_looks_elsewhere_for_some_is_found_out_and_its_mending_seen(method):
    _, masks, _ = planted()
    masks["rest"] = ~masks["top"] & ~masks["left"]
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    group = np.arange(40) % 2
    images[:, :, 7, 7] = torch.tensor(group)[:, None].float()
    options = {"patch": 2, "stride": 2} if method == "occlusion" else {}
    before, after = (attribute(LooksBy(masks, mended), images, 1, method, **options) for mended in (False, True))
    found = regions(before, masks, group, groups=["dark", "bright"]).differences.set_index("region")
    assert found.verdict[["top", "left"]].eq("differs").all()
    assert found.difference["top"] < -0.7 < 0.5 < found.difference["left"]
    moved = shift(before, after, masks, group, groups=["dark", "bright"]).by_group.set_index(["group", "region"])
    assert moved.loc[("dark", "top"), "value"] > 0.7 and moved.loc[("dark", "top"), "verdict"] == "differs"
    assert moved.loc["bright"].verdict.isin(["within noise", "undefined"]).all()


def test_drawn_faces_bring_their_regions(monkeypatch, tmp_path):
    monkeypatch.setenv("CANDOR_CACHE", str(tmp_path))
    faces = load_faces("illustrated", n=8, split="train", image_size=32, n_jobs=1, progress=False)
    masks = [faces.regions(i) for i in range(8)]
    found = regions(np.ones((8, 32, 32)), masks, faces.group, groups=faces.groups, **QUICK)
    total = found.per_image.sum(axis=1)
    np.testing.assert_allclose(total, 1)  # each pixel is in one region
    no_glasses = faces.group == faces.groups.index("not glasses")
    worn = found.per_image["accessories"].notna()
    assert not worn[no_glasses].any() and worn[~no_glasses].all() and 0 < worn.sum() < 8


def test_blocks_of_images_make_no_difference(monkeypatch):
    maps, masks, _ = planted()
    masks["random"] = np.random.default_rng(0).random(maps.shape) < 0.5
    whole = region_shares(maps, masks)
    monkeypatch.setattr(importlib.import_module("helpers.attribution.regions"), "BLOCK", 200)
    np.testing.assert_array_equal(region_shares(maps, masks), whole)
    by_hand = np.maximum(maps, 0)
    np.testing.assert_allclose(whole[:, 3], (by_hand * masks["random"]).sum((1, 2)) / by_hand.sum((1, 2)))


def test_few_people_are_told_from_none():
    values = np.array([[1.0], [np.nan], [2.0], [3.0], [4.0]])
    members = Members(np.array([0, 0, 1, 1, 2]), ("one", "two", "lone", "nobody"), np.arange(5))
    found = estimates(values, members, Draws()).set_index("group")
    assert found.n.tolist() == [1, 2, 1] and found.value.tolist() == [1, 2.5, 4] and np.isnan(found.low["one"])
    gaps = differences(values, members, Draws())
    assert gaps.p.isna().all() and gaps.low.isna().all() and gaps.difference.notna().all()


def test_a_method_that_fails_the_randomisation_check_supports_no_claim():
    maps, masks, group = planted()
    blind = pd.Series({"sees": 0.1, "blind": -0.93})
    found = regions({"sees": maps, "blind": maps}, masks, group, randomised=blind, threshold=0.5)
    table = found.differences.set_index("method")
    assert set(table.loc["blind"].verdict) == {"not trusted"} and table.loc["blind"].p_holm.isna().all()
    assert "correlate -0.93" in table.loc["blind"].reason.iloc[0] and "not trusted: blind" in repr(found)
    alone = regions({"sees": maps}, masks, group, randomised=blind)
    assert table.loc["sees"].p_holm.tolist() == pytest.approx(alone.differences.p_holm.tolist(), nan_ok=True)
    for doubted in (0.8, np.nan, {"whatever": 0.7}):
        found = regions(maps, masks, group, randomised=doubted, **QUICK)
        assert set(found.differences.verdict) == {"not trusted"} and "method" not in found.differences
    assert any("no randomisation check" in note for note in regions(maps, masks, group, **QUICK).notes)
    few = regions(maps, masks, group, n_permutations=50, n_boot=50)
    assert any("too few" in note for note in few.notes)


def test_a_shift_is_found_where_it_was_planted():
    before, masks, group = planted(20)
    after = before.copy()
    after[group == "b", :2] *= 0.4
    found = shift(before, after, masks, group)
    table = found.by_group.set_index(["group", "region"])
    assert table.verdict[[("all", "top"), ("b", "top"), ("b", "left")]].eq("differs").all()
    assert table.loc[["a", "c"], ["value", "low", "high"]].drop("nothing", level=1).eq(0).all(axis=None)
    assert table.loc[["a", "c"], "p"].drop("nothing", level=1).eq(1).all()
    assert "4 of 12 changes beyond noise" in repr(found) and "top b -0." in repr(found)
    by_hand = (region_shares(after, masks) - region_shares(before, masks))[group == "b", 0]
    row = table.loc[("b", "top")]
    assert row.value == pytest.approx(by_hand.mean()) == pytest.approx(row.after - row.before)
    assert set(found.differences.query("verdict == 'differs'").region) == {"top", "left"}
    back = shift(after, before, masks, group)
    np.testing.assert_allclose(back.by_group.value, -found.by_group.value)
    np.testing.assert_allclose(back.by_group.p, found.by_group.p)
    people = shift(before, after, masks, group, identity=np.arange(60) // 5, **QUICK).by_group.set_index(["group", "region"])
    assert people.loc[("b", "top"), "p"] == 2 / 2**4 and people.loc[("b", "top"), "people"] == 4  # four people prove little


def test_the_shift_keeps_its_level():
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(12), rng.integers(1, 9, 12))
    change = rng.standard_t(3, size=(12, 2000))[person] + 0.3 * rng.normal(size=(len(person), 2000))
    everybody = lambda who: Members(np.zeros(len(person), int), ("all",), who)
    draws = Draws(n_permutations=4096)
    assert 0.03 < (zero_test(change, everybody(person), draws) <= 0.05).mean() < 0.065
    assert (zero_test(change, everybody(np.arange(len(person))), Draws(n_permutations=499)) <= 0.05).mean() > 0.2


def test_quality_by_group():
    rng = np.random.default_rng(0)
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    masks, group = np.zeros((40, 8, 8), bool), np.repeat(np.array(["near", "far"]), 20)
    masks[:, :3] = True
    good = rng.random((40, 8, 8)) + 2 * masks * (group == "near")[:, None, None]
    frame = evaluate(model, images, {"good": good, "chance": rng.random((40, 8, 8))}, 0,
                     ["relevance_mass", "pointing_game", "MRR"], masks)  # fmt: skip
    found = quality(frame, group, randomised={"good": 0.0, "chance": 0.99})
    table = found.differences.set_index(["method", "metric"])
    row = table.loc[("good", "relevance_mass")]
    assert row.verdict == "differs" and row.worse == "far" and row.group == "far" and row.difference < 0
    assert table.loc[("good", "MRR"), "worse"] == ""  # which is neither good nor bad in itself
    assert set(table.loc["chance"].verdict) == {"not trusted"} and (table.loc["chance"].worse == "").all()
    values = frame.query("method == 'good' and metric == 'relevance_mass'").set_index("image").value
    by_group = found.by_group.set_index(["method", "metric", "group"])
    assert by_group.loc[("good", "relevance_mass", "near"), "value"] == pytest.approx(values[:20].mean())
    assert 0.5 < by_group.loc[("good", "pointing_game", "near"), "low"] < 0.9  # Wilson's, though every image hits
    shuffled = quality(frame.sample(frac=1, random_state=0), group, randomised={"good": 0.0, "chance": 0.99})
    again = shuffled.differences.set_index(["method", "metric"]).loc[table.index]
    pd.testing.assert_frame_equal(again, table)
    assert "method" not in quality(frame[frame.method == "good"].drop(columns="method"), group, **QUICK).differences


def test_one_group_has_no_differences_and_faultless_predictions_no_others():
    maps, masks, _ = planted(4)
    found = regions(maps, masks, np.zeros(12, int), correct=np.ones(12, bool), **QUICK)
    assert len(found.differences) == len(found.outcomes) == 0 and "verdict" in found.outcomes
    assert set(found.by_group.predictions) == {"all", "correct"} and "0 of 0 differences" in repr(found)
    maps[:3] = [[[0.0]], [[np.nan]], [[-1.0]]]
    found = regions(maps, masks, np.zeros(12, int), **QUICK)
    assert "3 of 12 maps have no relevance, and are left out" in found.notes and found.by_group.n.max() == 9


def test_bad_input_is_refused_by_name():
    maps, masks, group = planted(4)
    good = {"maps": maps, "masks": masks, "group": group}
    for change, message in [
        ({"maps": maps[:, None]}, "maps: .*sum over channels first"),
        ({"maps": {}}, "maps: an empty dict"),
        ({"maps": {"x": maps, "y": maps[:3]}}, r"maps y: shape \(3, 8, 8\)"),
        ({"masks": {}}, "masks: .*at least one"),
        ({"masks": {"top": np.ones((4, 4), bool)}}, r"masks top: shape \(4, 4\); expected \(12, 8, 8\) or \(8, 8\)"),
        ({"masks": {"top": np.full((8, 8), 0.5)}}, "masks top: float64 with values other than 0 and 1"),
        ({"masks": [masks] * 3}, "masks: 3 dicts given for 12 maps"),
        ({"masks": [masks] * 11 + [{"other": masks["top"]}]}, "masks: .*different regions"),
        ({"group": group[:5]}, "group: 5 rows given for 12 images"),
        ({"identity": [1, 2]}, "identity: 2 rows given for 12 images"),
        ({"correct": np.ones(3, bool)}, "correct: .*expected booleans"),
        ({"correct": np.full(12, 2)}, "correct: .*expected booleans"),
        ({"relevance": "postive"}, "Did you mean 'positive'"),
        ({"measure": "shares"}, "Did you mean 'share'"),
        ({"confidence": 95}, "confidence: 95"),
        ({"n_permutations": 0}, "n_permutations: 0"),
        ({"threshold": 2}, "threshold: 2"),
        ({"randomised": 1.5}, "randomised.*between -1 and 1"),
        ({"randomised": [0.5]}, "randomised: list given"),
        ({"maps": {"x": maps}, "randomised": {"y": 0.1}}, "randomised: nothing for 'x'; there are 'y'"),
        ({"maps": {"x": maps, "y": maps}, "randomised": 0.1}, "randomised: one number for 2 methods"),
    ]:
        with pytest.raises(ValueError, match=message):
            regions(**good | change)
    with pytest.raises(ValueError, match="after: shape"):
        shift(maps, maps[:4], masks, group)
    with pytest.raises(ValueError, match="after: maps of 'y'; before has 'x'"):
        shift({"x": maps}, {"y": maps}, masks, group)
    with pytest.raises(ValueError, match="called 'all'"):
        shift(maps, maps, masks, ["all"] * 6 + ["b"] * 6)
    frame = pd.DataFrame({"image": [0, 1, 1], "metric": "m", "value": 1.0})
    for table, message in [(frame, "several values"), (frame.drop(columns="value"), "no column value"), (frame[:0], "no row")]:
        with pytest.raises(ValueError, match=message):
            quality(table, [0, 1])
    with pytest.raises(ValueError, match="images from 0 to 1"):
        quality(frame[:2], [0])
