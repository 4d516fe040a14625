"""Drawn faces: masks and counterfactuals hold to their definition, bias to its dose, the same seed to the same bytes."""

import hashlib
import multiprocessing
import os

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.data import load_faces
from helpers.data.masks import REGIONS, region_masks
from helpers.data.sources.illustrated import joint_shares, sample_table
from helpers.data.styles import ATTRIBUTES, GUIDES, licences

DRAWABLE = [(style, name) for style, guide in GUIDES.items() for name in ATTRIBUTES if name not in guide.cannot]


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANDOR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def draw(n=20, split="test", **options):
    return load_faces("illustrated", split=split, n=n, image_size=32, n_jobs=1, progress=False, **options)


def as_bytes(image):
    return (image * 255).round().to(torch.uint8)


@pytest.mark.parametrize(("style", "attribute"), DRAWABLE)
def test_a_mask_is_exactly_where_the_picture_differs_from_its_counterfactuals(style, attribute):
    target = "smiling" if attribute != "smiling" else "glasses"
    faces = draw(4, styles=style, target=target, protected="skin_tone")
    for i in range(len(faces)):
        image = as_bytes(faces[i][0])
        value = faces.table[attribute][i]
        differs = torch.zeros(32, 32, dtype=torch.bool)
        for other in ATTRIBUTES[attribute]:
            if other != value:
                differs |= (as_bytes(faces.counterfactual(i, attribute, other)) != image).any(0)
        assert torch.equal(torch.from_numpy(faces.mask(i, attribute)), differs)
        hidden = attribute == "hair_length" and faces.table["head_covering"][i]
        shown = attribute != "clothing"  # a close crop can leave no clothing in the picture
        assert differs.any() or hidden or not shown


def test_a_counterfactual_to_the_present_value_is_the_picture_itself():
    faces = draw()
    for i in range(len(faces)):
        same = faces.counterfactual(i, "glasses", bool(faces.table["glasses"][i]))
        assert torch.equal(as_bytes(same), as_bytes(faces[i][0]))


def test_a_counterfactual_leaves_everything_outside_the_mask_alone():
    faces = draw(8)
    for i in range(8):
        changed = (as_bytes(faces.counterfactual(i, "smiling")) != as_bytes(faces[i][0])).any(0).numpy()
        assert changed.any()
        assert changed.mean() < 0.35
        assert not (changed & ~faces.mask(i, "smiling")).any()


def test_the_smile_is_the_mouth_in_either_state_and_the_glasses_sit_above_it():
    faces = draw(20, nuisance=0.0)
    for i in range(20):
        person, attributes, nuisance = faces.face(i)
        either = np.zeros((32, 32), dtype=bool)
        for smiling in (False, True):
            regions = region_masks(person, {**attributes, "smiling": smiling}, nuisance, 32)
            either |= regions["mouth"] | regions["facial_hair"]
            if person.style == "open-peeps":  # one drawing holds the whole expression
                either |= regions["eyes"]
        smile = faces.mask(i, "smiling")
        assert smile.any()
        assert (smile & ~either).sum() <= 0.2 * smile.sum(), person.style
        rows = np.flatnonzero(faces.mask(i, "glasses").any(1))
        assert rows.mean() < np.flatnonzero(faces.regions(i)["mouth"].any(1)).mean()


def test_regions_cover_every_pixel_once():
    faces = draw(20)
    for i in range(20):
        regions = faces.regions(i)
        assert tuple(regions) == REGIONS
        assert (np.sum([mask for mask in regions.values()], axis=0) == 1).all()
        assert regions["accessories"].any() == bool(faces.table["glasses"][i])
        assert regions["head_covering"].any() == bool(faces.table["head_covering"][i])
        assert not regions["facial_hair"].any() or faces.table["facial_hair"][i]


@pytest.mark.parametrize("correlation", [-1.0, 0.0, 0.5, 0.9, 1.0])
def test_the_correlation_asked_for_is_the_phi_coefficient_of_the_table(correlation):
    table = sample_table(400, "train", "smiling", ("glasses",), correlation, 4, tuple(GUIDES), 1.0, seed=3)
    phi = np.corrcoef(table["smiling"].astype(float), table["glasses"].astype(float))[0, 1]
    assert phi == pytest.approx(correlation, abs=0.011)
    assert table["smiling"].mean() == table["glasses"].mean() == 0.5


def test_attributes_that_are_not_under_study_do_not_go_with_the_target():
    table = sample_table(4000, "train", "smiling", ("glasses",), 0.9, 4, ("avataaars", "micah"), 1.0, seed=0)
    for name in set(ATTRIBUTES) - {"smiling", "glasses"}:
        codes = pd.factorize(table[name], sort=True)[0]
        assert abs(np.corrcoef(codes, table["smiling"])[0, 1]) < 0.06, name


def test_a_protected_attribute_of_three_values_is_biased_as_documented():
    shares = joint_shares("smiling", "skin_tone", 0.8)
    assert shares.sum() == pytest.approx(1)
    assert shares[0, 0] / shares[0].sum() == pytest.approx(0.9)
    assert shares[1, 1] / shares[1].sum() == pytest.approx(0.9)
    assert shares[2, 0] / shares[2].sum() == pytest.approx(0.9)


def test_the_test_split_is_balanced_and_the_train_split_is_not():
    test, train = draw(40), draw(40, split="train")
    assert (test.counts().to_numpy() == 10).all()
    assert train.counts().to_numpy().max() > 15


def test_no_identity_is_in_two_splits_or_under_two_seeds():
    people = [set(draw(12, split=split, seed=seed).table["identity"])
              for split in ("train", "validation", "test") for seed in (0, 1)]
    assert len(set.union(*people)) == sum(map(len, people))
    everyone = draw(50, split="all").table
    assert (everyone.groupby("identity")["split"].nunique() == 1).all()
    assert set(everyone["split"]) == {"train", "validation", "test"}


def test_no_drawn_person_and_no_nuisance_is_shared_between_splits_or_seeds():
    # under another name the same face could still be in two splits: what it is drawn from has to differ
    tables = [sample_table(40, split, "smiling", ("glasses",), 0.8, 4, tuple(GUIDES), 1.0, seed)
              for split in ("train", "validation", "test") for seed in (0, 1)]
    for column, each in (("person_seed", 10), ("picture_seed", 40)):
        assert pd.concat(tables)[column].nunique() == each * len(tables)
    for table in tables:  # one name a person, and one person a name
        assert len(table[["identity", "person_seed"]].drop_duplicates()) == table["identity"].nunique() == 10


def test_one_identity_keeps_its_style_and_skin():
    table = draw(24).table
    assert (table.groupby("identity")[["style", "skin_tone", "hair_length"]].nunique() == 1).all().all()


def _digest(cache):
    os.environ["CANDOR_CACHE"] = cache
    faces = draw(12, seed=4)
    return hashlib.sha256(faces.images.tobytes() + faces.table.to_csv().encode()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_in_another_process_and_another_seed_does_not(tmp_path):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.apply(_digest, (str(tmp_path),))
    faces, other = draw(12, seed=4), draw(12, seed=5)
    assert hashlib.sha256(faces.images.tobytes() + faces.table.to_csv().encode()).hexdigest() == elsewhere
    assert not np.array_equal(faces.images, other.images)


def test_drawing_goes_on_where_it_was_interrupted(monkeypatch, tmp_path):
    from helpers.data.sources import illustrated

    monkeypatch.setenv("CANDOR_CACHE", str(tmp_path / "whole"))
    whole = np.array(draw(30, seed=9).images)
    monkeypatch.setenv("CANDOR_CACHE", str(tmp_path / "parts"))
    monkeypatch.setattr(illustrated, "CHUNK", 10)
    drawn, real = [], illustrated._render_chunk

    def stop_after_one(rows, size, path):
        if drawn:
            raise KeyboardInterrupt
        drawn.append(path)
        real(rows, size, path)

    monkeypatch.setattr(illustrated, "_render_chunk", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        draw(30, seed=9)
    monkeypatch.setattr(illustrated, "_render_chunk", lambda rows, size, path: (drawn.append(path), real(rows, size, path)))
    assert np.array_equal(draw(30, seed=9).images, whole)
    assert len(drawn) == len(set(drawn)) == 3
    left = [path.name for path in (tmp_path / "parts" / "illustrated").iterdir()]
    assert len(left) == 1 and left[0].endswith(".npy")


def test_a_file_that_windows_does_not_replace_is_the_other_process_s(monkeypatch, tmp_path):
    monkeypatch.setenv("CANDOR_CACHE", str(tmp_path))
    real = os.replace

    def refusing(source, target, other=True):
        if "parts" in os.fspath(target):
            return real(source, target)
        if other:  # another process has put the same faces there, and reads them
            real(source, target)
        raise PermissionError("the file is mapped by another process")

    monkeypatch.setattr(os, "replace", refusing)
    assert len(draw(10, seed=10)) == 10
    monkeypatch.setattr(os, "replace", lambda source, target: refusing(source, target, other=False))
    with pytest.raises(PermissionError, match="mapped"):
        draw(10, seed=11)


def test_two_processes_may_draw_the_same_faces_at_once(monkeypatch, tmp_path):
    from helpers.data.sources import illustrated

    monkeypatch.setenv("CANDOR_CACHE", str(tmp_path))
    monkeypatch.setattr(illustrated, "CHUNK", 10)
    real, whole = illustrated._render_chunk, []

    def other_finishes_first(rows, size, path):
        monkeypatch.setattr(illustrated, "_render_chunk", real)
        if not whole:
            whole.append(np.array(draw(30, seed=11).images))
        real(rows, size, path)

    monkeypatch.setattr(illustrated, "_render_chunk", other_finishes_first)
    assert np.array_equal(draw(30, seed=11).images, whole[0])
    assert [path.suffix for path in (tmp_path / "illustrated").iterdir()] == [".npy"]


def test_a_subset_redraws_its_own_faces():
    faces = draw(12)
    part = faces.subset([7, 3])
    assert torch.equal(part.counterfactual(0, "glasses"), faces.counterfactual(7, "glasses"))
    assert np.array_equal(part.mask(1, "smiling"), faces.mask(3, "smiling"))
    assert part.masks([0, 1], "smiling").shape == (2, 32, 32)


def test_every_style_states_its_licence():
    assert set(licences()) == set(GUIDES)
    assert all("licen" in text for text in licences().values())


@pytest.mark.parametrize(("options", "message"), [
    ({"target": "smilling"}, "target: unknown name 'smilling'. Did you mean 'smiling'"),
    ({"protected": "smiling"}, "protected: expected attributes other than the target"),
    ({"correlation": 1.5}, r"correlation: expected a number in \[-1, 1\], got 1.5"),
    ({"styles": "avatars"}, "styles: unknown name 'avatars'. Did you mean 'avataaars'"),
    ({"styles": "big-smile", "protected": "facial_hair"}, "styles: none of big-smile can draw"),
    ({"nuisance": 2}, r"nuisance: expected a number in \[0, 1\]"),
    ({"n": 0}, "n: expected a whole number of at least 1, got 0"),
    ({"n": "many"}, "n: expected a whole number of at least 1, got 'many'"),
    ({"n": 2, "split": "all"}, "n: expected a whole number of at least 3, got 2"),
    ({"correlation": "strong"}, r"correlation: expected a number in \[-1, 1\], got 'strong'"),
    ({"correlation": float("nan")}, "correlation: expected a number"),
    ({"nuisance": True}, r"nuisance: expected a number in \[0, 1\], got True"),
    ({"images_per_identity": 1.5}, "images_per_identity: expected a whole number of at least 1, got 1.5"),
    ({"styles": ()}, "styles: expected at least one of avataaars, .*, got none"),
    ({"styles": 5}, "styles: expected a name or several, got 5"),
    ({"protected": 5}, "protected: expected a name or several, got 5"),
    ({"root": "somewhere"}, "root: 'illustrated' is drawn, not read"),
])
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        draw(**{"n": 4, **options})


@pytest.mark.parametrize("n", [3, 10, 20])
def test_all_splits_together_have_the_number_of_images_asked_for(n):
    faces = draw(n, split="all", nuisance=0)
    assert len(faces) == n and set(faces.table["split"]) == {"train", "validation", "test"}


def test_attributes_are_written_in_any_case():
    faces = draw(2)
    assert np.array_equal(faces.mask(0, "Smiling"), faces.mask(0, "smiling"))
    assert torch.equal(faces.counterfactual(0, "SMILING"), faces.counterfactual(0, "smiling"))


def test_what_a_style_cannot_draw_is_refused_by_name():
    faces = draw(4, styles="big-smile")
    with pytest.raises(ValueError, match="'big-smile' of image 0 has no drawing for 'facial_hair'"):
        faces.mask(0, "facial_hair")
    with pytest.raises(ValueError, match="value: skin_tone cannot be 'green'; accepted: light, medium, dark"):
        faces.counterfactual(0, "skin_tone", "green")
