"""Recipes: exactly these rows again, or what differs by name. About 20 seconds on one thread."""

import base64
import copy
import json
import shutil
import subprocess
import sys
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import helpers
from helpers import models
from helpers.data import FaceDataset, load_faces, recall
from helpers.data.recipe import _packed, _unpacked, read, write


def write_images(folder, paths):
    for i, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 255, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / path)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The same 48 pictures of 16 people as a tree of folders, as a table and in CelebA's layout."""
    top, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    smiling, male = rng.random(48) < 0.5, rng.random(48) < 0.5
    kinds = [("smile" if s else "calm", "man" if m else "woman") for s, m in zip(smiling, male, strict=True)]
    write_images(top / "tree", [f"{a}/{b}/p{i // 3}/{i}.png" for i, (a, b) in enumerate(kinds)])
    write_images(top / "table", [f"{i}.png" for i in range(48)])
    rows = {"path": [f"{i}.png" for i in range(48)], "identity": np.arange(48) // 3, "smiling": smiling.astype(int), "male": male}
    pd.DataFrame(rows).to_csv(top / "table" / "faces.csv", index=False)
    files = [f"{i + 1:06}.jpg" for i in range(48)]
    write_images(top / "celeba" / "img_align_celeba", files)
    signs = np.where(np.c_[male, smiling], 1, -1)
    text = [f"{file} {m} {s}" for file, (m, s) in zip(files, signs, strict=True)]
    (top / "celeba" / "list_attr_celeba.txt").write_text("\n".join(["48", "Male Smiling", *text]) + "\n")
    for name, values in {"identity_CelebA": np.arange(48) // 3, "list_eval_partition": np.repeat([0, 1, 2], [30, 9, 9])}.items():
        lines = "".join(f"{file} {value}\n" for file, value in zip(files, values, strict=True))
        (top / "celeba" / f"{name}.txt").write_text(lines)
    return top


@pytest.fixture
def top(originals, tmp_path):
    return shutil.copytree(originals, tmp_path / "data")


def loaded(top, name):
    """Faces of each source after some of the things that can be done to them."""
    mix = np.random.default_rng(1).permutation
    if name == "illustrated":
        faces = load_faces("illustrated", n=60, image_size=16, progress=False, variant={"smiling, glasses": 0.4}, seed=2)
        return faces.relabel(protected=("glasses", "facial_hair")).subset(mix(len(faces)))
    if name == "orl":
        return load_faces("orl", split="train", image_size=16).variant({"correlation": 0.2}, seed=3).relabel(target="facial_hair",
                                                                                                            protected="glasses")
    if name == "folder":
        return load_faces("folder", root=top / "tree", image_size=8, split="all", levels=("mood", "sex", "identity"),
                          protected="sex").balanced(seed=4)  # fmt: skip
    if name == "table":
        faces = load_faces("table", root=top / "table" / "faces.csv", target="smiling", protected="male", image_size=8, seed=5)
        return faces.subset(mix(len(faces))[:20]).subset(slice(3, 17, 2))
    return load_faces("celeba", root=top / "celeba", image_size=8, seed=6, variant={"splits": {"train": {"Male, Smiling": 0.5}}})


NAMES = ("illustrated", "orl", "folder", "table", "celeba")
FRESH = """
import hashlib, sys
from helpers.data import recall
for path in sys.argv[1:]:
    f = recall(path)
    names = repr((f.classes, f.groups, f.target, f.protected)).encode()
    parts = (f.images.tobytes(), f.targets.tobytes(), f.group.tobytes(), names)
    print(*(hashlib.sha256(part).hexdigest() for part in parts))
"""


def test_a_fresh_process_loads_the_same_bytes_in_the_same_order(top, tmp_path):
    import hashlib

    wanted, paths = [], []
    for name in NAMES:
        f = loaded(top, name)
        names = repr((f.classes, f.groups, f.target, f.protected)).encode()
        parts = (np.ascontiguousarray(f.images).tobytes(), f.targets.tobytes(), f.group.tobytes(), names)
        wanted.append(" ".join(hashlib.sha256(part).hexdigest() for part in parts))
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(f.recipe))
        assert len(f) > 5
    done = subprocess.run([sys.executable, "-c", FRESH, *map(str, paths)], capture_output=True, text=True)
    assert done.stdout.splitlines() == wanted, done.stderr


def test_a_recall_has_the_recipe_that_it_came_from(top):
    for name in ("table", "celeba"):
        faces = loaded(top, name)
        assert recall(faces.recipe).recipe == faces.recipe
        assert recall(faces.recipe).table.equals(faces.table)


def test_data_may_have_moved(top, tmp_path):
    faces = loaded(top, "folder")
    shutil.move(top / "tree", tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="tree does not exist"):
        recall(faces.recipe)
    assert (recall(faces.recipe, tmp_path / "elsewhere").images == faces.images).all()


def test_a_removed_and_a_new_file_are_named(top):
    recipe = loaded(top, "folder").recipe
    gone = next((top / "tree").glob("*/*/p3/*"))
    path = gone.relative_to(top / "tree").as_posix()
    gone.rename(gone.with_name("new.png"))
    new = path.rpartition("/")[0] + "/new.png"
    with pytest.raises(ValueError, match=rf"48 images in all splits, and had 48; 1 is missing: {path}; 1 is new: {new}"):
        recall(recipe)
    gone.with_name("new.png").unlink()
    with pytest.raises(ValueError, match=rf"it has 47 images in all splits, and had 48; 1 is missing: {path}$"):
        recall(recipe)
    recipe["check"]["files"]["list"] = None  # as where the list is too long to be kept
    with pytest.raises(ValueError, match="had 48; of the sorted files, they differ first in rows") as caught:
        recall(recipe)
    there = sorted(p.relative_to(top / "tree").as_posix() for p in (top / "tree").rglob("*.png"))
    told = str(caught.value).rpartition("(now ")[2].rstrip(")").split(" to ")
    assert all(abs(sorted([*there, path]).index(path) - there.index(one)) <= 2 for one in told)
    file = top / "celeba" / "img_align_celeba" / "000007.jpg"
    celeba = loaded(top, "celeba").recipe
    file.unlink()
    with pytest.raises(FileNotFoundError, match="such as 000007.jpg"):
        recall(celeba)


@pytest.mark.parametrize("small", [True, False])
def test_a_changed_label_is_named(top, small):
    faces = load_faces("table", root=top / "table" / "faces.csv", target="smiling", protected="male", image_size=8, seed=5)
    recipe, path = faces.recipe, faces.table["path"].iloc[4]
    if not small:  # as in a recipe of a data set whose labels are too many to be kept
        recipe["check"]["codes"] = None
    sheet = top / "table" / "faces.csv"
    table = pd.read_csv(sheet)
    table.loc[table["path"] == path, "smiling"] = 1 - int(faces.targets[4])
    table.to_csv(sheet, index=False)
    old, new = faces.classes[faces.targets[4]], faces.classes[1 - faces.targets[4]]
    sex = faces.groups[faces.group[4]]
    told = rf"1 of {len(faces)} have other labels: {path} is {new}, {sex} and was {old}, {sex}"
    wanted = told if small else "labels differ first in"
    with pytest.raises(ValueError, match=wanted) as caught:
        recall(recipe)
    assert path in str(caught.value)


def test_another_seed_gives_other_rows_which_are_refused(top):
    for name in ("table", "illustrated"):
        recipe = loaded(top, name).recipe
        recipe["load"]["seed"] += 1
        with pytest.raises(ValueError, match="recipe: the data is not what it was: .*(rows come out|picks from)"):
            recall(recipe)


def test_a_picture_that_was_changed_is_found(top):
    faces = loaded(top, "table")
    path = faces.table["path"].iloc[2]
    Image.new("RGB", (12, 12), (1, 2, 3)).save(top / "table" / path)
    with pytest.raises(ValueError, match=rf"pixels differ first in rows 2 to 2 \(now {path} to {path}\)"):
        recall(faces.recipe)
    assert len(recall(faces.recipe, pixels=False)) == len(faces)


def put(recipe, keys, value):
    *way, last = keys.split(".")
    for key in way:
        recipe = recipe[int(key) if key.isdecimal() else key]
    recipe[last] = value


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("format", 2, "format: expected 1, got 2"),
        ("name", "os.system", "name: unknown name 'os.system'"),
        ("name", 3, "name: 3 came"),
        ("code", "import os", "unknown name 'code'"),
        ("root", ["a"], "root: .'a'. came"),
        ("load", [], "load: .. came"),
        ("load.target", 3, "load: target: 3 came"),
        ("load.protected", [1], "load: protected"),
        ("load.split", "tests", "split: unknown name 'tests'"),
        ("load.image_size", "8", "image_size"),
        ("load.seed", -1, "seed"),
        ("load.options", {"onerror": 1}, "load: options: unknown name 'onerror'. Did you mean 'on_error'"),
        ("load.options", {"on_error": {}}, "on_error"),
        ("variant", {"shares": {"x": 3}}, "variant: the share of"),
        ("variant", "all", "variant: 'all' came"),
        ("steps", {}, "steps"),
        ("steps", [{"exec": {}}], "steps: unknown name 'exec'"),
        ("steps", [{"rows": {"of": 9}}], "steps: rows"),
        ("steps", [{"rows": {"of": 30, "ranges": "a-b"}}], "is no range of rows below"),
        ("steps", [{"rows": {"of": 30, "ranges": "0-9999999999"}}], "is no range of rows below"),
        ("steps", [{"rows": {"of": 30, "bitmap": "!"}}], "is no packed list"),
        ("steps", [{"rows": {"of": 30, "bitmap": base64.b64encode(zlib.compress(bytes(10**7))).decode()}}], "is no packed list"),
        ("steps", [{"rows": {"of": 30, "list": base64.b64encode(zlib.compress(b"\xff" * 8)).decode()}}], "leaves the 30 rows"),
        ("steps", [{"relabel": {"target": 5, "protected": None}}], "steps: relabel"),
        ("steps", [{"variant": {"wanted": {}, "seed": "x"}}], "steps: seed"),
        ("steps", [{"balanced": {}}], "steps: balanced: lacks seed"),
        ("check.rows", None, "check: rows: None came"),
        ("check.chunks", {}, "check: chunks"),
        ("check.files", {"images": 3}, "check: files: lacks sha256, chunks, list"),
        ("images", 10**30, "images: 1000"),
        ("versions", 3, "versions"),
    ],
)
def test_nonsense_is_refused_by_name(originals, keys, value, message):
    faces = load_faces("table", root=originals / "table" / "faces.csv", target="smiling", protected="male", image_size=8, seed=5)
    assert len(faces) == 30
    recipe = copy.deepcopy(faces.recipe)
    put(recipe, keys, value)
    with pytest.raises(ValueError, match=message):
        recall(recipe)


def places(value, way=()):
    """Every place in nested dicts and lists, as the keys that lead there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*way, key)
        yield from places(each, (*way, key))


JUNK = (None, 0, -1, 3, 1.5, True, "", "x", "0-3", [], [1], [[]], {}, {"of": 3}, 10**30, "\ud800")


@settings(max_examples=60)
@given(st.data())
def test_any_junk_anywhere_is_a_value_error_or_harmless(originals, data):
    faces = load_faces("table", root=originals / "table" / "faces.csv", target="smiling", protected="male", image_size=8,
                       variant={"male": 0.4})  # fmt: skip
    part_of = faces.relabel("male", "smiling").variant({"correlation": 0}).subset([0, 3, 1])
    recipe = part_of.recipe
    *way, last = data.draw(st.sampled_from([place for place in places(recipe) if place[0] != "versions"]))
    part = recipe
    for key in way:
        part = part[key]
    if data.draw(st.booleans()):
        part[last] = data.draw(st.sampled_from(JUNK))
    else:
        del part[last]
    try:
        again = recall(recipe)
    except (ValueError, FileNotFoundError) as error:
        assert str(error)
    else:
        assert again.table["path"].tolist() == part_of.table["path"].tolist() and (again.images == part_of.images).all()


def test_files_that_are_no_recipes_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="recipe: .*absent.json does not exist"):
        recall(tmp_path / "absent.json")
    for text, message in [
        ("{", "is not readable JSON"),
        ("[]", "expected an object"),
        ("{}", "format: expected 1"),
        ('{"format": 1, "rows": {}}', "rows: expected recipes by part"),
        ('{"format": 1, "rows": {"tset": {}}}', "Did you mean 'test'"),
        ('{"info": {}}', "keeps no rows"),
    ]:
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            recall(tmp_path / "r.json")


@given(st.integers(1, 900), st.data())
def test_row_numbers_survive_packing_in_any_order(n, data):
    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=600))
    for chosen in (rows, sorted(set(rows)), list(range(min(rows), max(rows) + 1))):
        step = json.loads(json.dumps(_packed({"rows": np.array(chosen), "of": n})))
        assert _unpacked(step["rows"], n).tolist() == chosen
    with pytest.raises(ValueError, match=f"picks from {n} rows, and there are {n + 1}"):
        _unpacked(step["rows"], n + 1)


def test_a_recipe_of_200000_rows_is_small():
    n, rng = 200_000, np.random.default_rng(0)
    table = pd.DataFrame({"smiling": rng.random(n) < 0.5, "woman": rng.random(n) < 0.4})
    table["path"] = [f"{i:06}.jpg" for i in range(n)]
    faces = FaceDataset(np.broadcast_to(np.uint8(3), (n, 2, 2, 3)), table, target="smiling", protected="woman")
    assert faces.recipe is None  # made by hand: nobody could load it again
    faces.source = {"name": "celeba", "root": "celeba", "load": {}, "variant": None}
    for part in (faces.subset(slice(5000, None, 3)), faces.balanced(1), faces.variant({"correlation": 0.5})):
        assert len(json.dumps(part.recipe)) < 10_000


@pytest.fixture(scope="module")
def trained(originals):
    """A small model, and the faces that it was trained, watched and is to be judged on."""
    call = {"root": originals / "table" / "faces.csv", "target": "smiling", "protected": "male", "image_size": 8, "seed": 5}
    parts = {split: load_faces("table", split=split, **call) for split in ("train", "validation", "test")}
    parts["train"] = parts["train"].balanced(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model = models.train(parts["train"].loader(8), network, validation=parts["validation"], epochs=1, progress=False)
    return model, parts


def test_a_saved_model_and_a_report_say_which_rows_they_are_of(trained, tmp_path):
    model, parts = trained
    models.save(model, tmp_path / "m")
    for part in ("train", "validation"):
        again = recall(tmp_path / "m.json", part=part)
        assert (again.images == parts[part].images).all() and (again.group == parts[part].group).all()
    with pytest.raises(ValueError, match="part: the recipe holds train, validation; name one"):
        recall(tmp_path / "m.json")
    helpers.report(model, parts["test"], tmp_path / "r.html", attributions=(), n_boot=20)
    assert set(read(tmp_path / "r.data.json")) == {"train", "validation", "test"}
    again = recall(tmp_path / "r.data.json", part="test")
    assert again.table["path"].tolist() == parts["test"].table["path"].tolist()
    by_hand = FaceDataset(parts["test"].images, parts["test"].table, target="smiling", protected="male")
    model = copy.deepcopy(model)
    del model.info["rows"]
    helpers.report(model, by_hand, tmp_path / "r.html", attributions=(), n_boot=20)
    assert not (tmp_path / "r.data.json").exists()  # it would tell of another report


def test_parts_are_named_when_they_are_written(trained, tmp_path):
    _, parts = trained
    with pytest.raises(ValueError, match="part: unknown name 'tests'"):
        write(tmp_path / "x.json", {"tests": parts["test"].recipe})
    assert write(tmp_path / "x.json", {"test": parts["test"].recipe, "train": None}) == tmp_path / "x.json"
    assert set(read(tmp_path / "x.json")) == {"test"}
