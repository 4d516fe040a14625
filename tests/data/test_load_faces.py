import pytest

from helpers.data import SOURCES, load_faces, source


def test_every_data_set_of_the_contract_is_registered():
    assert {"illustrated", "orl", "bfw", "celeba", "fairface", "utkface", "lfw", "folder", "table"} <= set(SOURCES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"name": "orll"}, "name: unknown name 'orll'. Did you mean 'orl'"),
        ({"split": "trian"}, "split: unknown name 'trian'. Did you mean 'train'"),
        ({"image_size": 7}, "image_size: .* from 8 to 1024, got 7"),
        ({"image_size": 4096}, "image_size"),
        ({"image_size": 64.0}, "image_size"),
        ({"seed": -1}, "seed"),
        ({"seed": None}, "seed"),
        ({"target": "glases"}, "target: no column 'glases'. Did you mean 'glasses'"),
        ({"protected": ["woman", "beard"]}, "protected: no column 'beard'"),
        ({"on_error": "skp"}, "on_error: .*Did you mean 'skip'"),
    ],
)
def test_bad_arguments_are_named_with_what_is_accepted(call, message):
    with pytest.raises(ValueError, match=message):
        load_faces(**{"name": "orl", **call})


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_misspelt_option_is_not_swallowed(name, tmp_path):
    with pytest.raises(TypeError, match="imgae"):
        load_faces(name, root=tmp_path, target="a", protected="b", imgae=3)


@pytest.mark.parametrize("name", ["bfw", "celeba", "fairface", "utkface", "lfw", "folder", "table"])
def test_data_of_ones_own_needs_a_place_that_exists(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CANDOR_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="root: the data set"):
        load_faces(name, target="a", protected="b")
    for nowhere in (tmp_path / "nowhere", "nowhere" * 100, "nowhere\0"):
        with pytest.raises(FileNotFoundError, match="root: .*nowhere.* does not exist. .*"):
            load_faces(name, root=nowhere, target="a", protected="b")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "faces.zip").touch()
    with pytest.raises(FileNotFoundError, match="is a file, not a folder"):
        load_faces("folder", root=tmp_path / "faces.zip")


def test_splits_are_written_in_any_case():
    assert load_faces("orl", split="Test", image_size=8).split == "test"


def test_a_name_is_registered_once():
    def other():
        pass

    with pytest.raises(ValueError, match="'orl' is registered already"):
        source("orl")(other)
    assert source("orl")(SOURCES["orl"]) is SOURCES["orl"]  # a reloaded module


def test_a_new_source_gets_only_what_was_given(monkeypatch):
    seen = {}

    def loader(*, target="x", split, image_size, seed, extra=1):
        seen.update(target=target, split=split, extra=extra)

    monkeypatch.setitem(SOURCES, "mine", loader)
    load_faces("mine", extra=2)
    assert seen == {"target": "x", "split": "train", "extra": 2}
