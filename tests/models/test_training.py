"""Training repeats to the byte, resumes to the byte, learns, and refuses bad input before its first step."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from helpers.models import predict, train
from tests.models.conftest import SmallNet, make_faces

QUICK = {"epochs": 3, "batch_size": 8, "progress": False, "device": "cpu"}


def bytes_of(model):
    return b"".join(value.contiguous().numpy().tobytes() for value in model.state_dict().values())


class Interrupted:
    """A data set whose loader is interrupted in the epoch of the given number."""

    def __init__(self, faces, epoch):
        self.faces, self.epoch, self.passes = faces, epoch, 0

    def __len__(self):
        return len(self.faces)

    def __getattr__(self, name):
        return getattr(self.faces, name)

    def loader(self, batch_size=64, shuffle=False, seed=0):
        inner = self.faces.loader(batch_size, shuffle, seed)
        self.passes += shuffle  # the look at the first batch is not shuffled
        stop = self.passes == self.epoch

        class Loader:
            def __len__(self):
                return len(inner)

            def __iter__(self):
                for number, batch in enumerate(inner):
                    if stop and number == 1:
                        raise KeyboardInterrupt
                    yield batch

        return Loader()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(faces, small):
    state, before = torch.get_rng_state(), bytes_of(small)
    one, two = train(faces, small, seed=1, **QUICK), train(faces, small, seed=1, **QUICK)
    assert bytes_of(one) == bytes_of(two) != bytes_of(train(faces, small, seed=2, **QUICK))
    assert torch.equal(torch.get_rng_state(), state)
    assert bytes_of(small) == before and small.training and not one.training


def test_it_learns_what_can_be_learnt():
    model = train(
        make_faces(60),
        SmallNet(),
        validation=make_faces(40, seed=9, split="test"),
        epochs=8,
        batch_size=8,
        lr=0.02,
        progress=False,
    )
    last = model.history.iloc[-1]
    assert last.validation_balanced_accuracy > 0.95 and last.validation_loss < model.history.validation_loss[0]
    assert list(model.history.epoch) == list(range(1, 9)) and (model.history.seconds > 0).all()
    assert model.classes == ("calm", "glad")
    assert model.info["data"]["name"] == "noise" and model.info["data"]["image_size"] == 16


def test_a_resnet_by_name_takes_the_classes_of_the_data():
    model = train(make_faces(12, size=32, classes=3), epochs=1, batch_size=6, progress=False, device="cpu")
    assert model.classes == ("calm", "glad", "sad") and model(torch.rand(1, 3, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_interrupted_run_resumes_to_the_same_bytes(tmp_path, faces, small, stop):
    options = QUICK | {"augment": "flip", "seed": 5, "validation": make_faces(10, seed=3)}
    undisturbed = train(faces, small, **options)
    path = tmp_path / "run" / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(faces, stop), small, checkpoint=path, **options)
    assert path.exists() == (stop > 1)
    torch.rand(stop)  # wherever the global state is by then
    resumed = train(faces, small, checkpoint=path, **options)
    assert bytes_of(resumed) == bytes_of(undisturbed)
    columns = [c for c in undisturbed.history if c != "seconds"]
    assert resumed.history[columns].equals(undisturbed.history[columns])
    finished = Interrupted(faces, 1)
    assert bytes_of(train(finished, small, checkpoint=path, **options)) == bytes_of(undisturbed)
    assert finished.passes == 0  # a finished run is not trained again
    assert [p.name for p in path.parent.iterdir()] == ["state.pt"]  # no temporary file left


@pytest.mark.parametrize("kind", ["own", "plain", "faces"])
def test_a_shuffled_loader_resumes_to_the_same_bytes_too(tmp_path, faces, small, kind, monkeypatch):
    def loader():
        if kind == "faces":
            return faces.loader(8, shuffle=True, seed=4)
        generator = torch.Generator().manual_seed(7) if kind == "own" else None
        return DataLoader(list(zip(*faces[:], strict=True)), batch_size=8, shuffle=True, generator=generator)

    undisturbed = train(loader(), small, **QUICK)
    from helpers.models import resume

    write, written = resume.write, []

    def write_then_stop(*args):
        write(*args)
        written.append(1)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume, "write", write_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train(loader(), small, checkpoint=tmp_path / "state.pt", **QUICK)
    monkeypatch.undo()
    assert bytes_of(train(loader(), small, checkpoint=tmp_path / "state.pt", **QUICK)) == bytes_of(undisturbed)


def test_a_checkpoint_of_another_run_is_refused_naming_what_differs(tmp_path, faces, small):
    path = tmp_path / "state.pt"
    train(faces, small, checkpoint=path, **QUICK)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="lr was 0.001, is now 0.01"):
        train(faces, small, checkpoint=path, lr=0.01, **QUICK)
    with pytest.raises(ValueError, match="epochs was 3, is now 4"):
        train(faces, small, checkpoint=path, **QUICK | {"epochs": 4})
    with pytest.raises(ValueError, match="initial weights"):
        train(faces, SmallNet(seed=1), checkpoint=path, **QUICK)
    with pytest.raises(ValueError, match=r"another run: data was"):
        train(make_faces(seed=2), small, checkpoint=path, **QUICK)
    assert path.read_bytes() == before
    path.write_bytes(before[:100])
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        train(faces, small, checkpoint=path, **QUICK)
    with pytest.raises(ValueError, match="checkpoint: .*is a folder"):
        train(faces, small, checkpoint=tmp_path, **QUICK)


class NeverStepped(SmallNet):
    """Says if its forward pass ran in training mode."""

    def forward(self, x):
        assert not self.training, "a training step was begun"
        return super().forward(x)


def rows(n=4, **other):
    parts = {
        "images": torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
        "targets": torch.arange(n) % 2,
        "group": torch.zeros(n, dtype=torch.int64),
    } | other
    return [tuple(parts.values())]


@pytest.mark.parametrize(
    "data, options, message",
    [
        ([], {}, "empty"),
        (iter(rows()), {}, "no length"),
        (rows(images=torch.zeros(4, 3, 16, 16, dtype=torch.uint8)), {}, "divide uint8"),
        (rows(images=torch.rand(4, 16, 16, 3)), {}, "permute"),
        (rows(images=torch.rand(4, 3, 16, 16) * 255), {}, r"accepted are \[0, 1\] \(divide by 255\)"),
        (rows(images=torch.randn(4, 3, 16, 16)), {}, "normalisation is the model's first layer"),
        (rows(images=torch.full((4, 3, 16, 16), torch.nan)), {}, "nan"),
        (rows(images=torch.rand(4, 3, 1, 1)), {}, "cannot take images of shape"),
        (rows(targets=torch.tensor([0, 1, 2, 2])), {}, "target 2 is outside the 2 classes, 2 of 4"),
        (rows(targets=torch.tensor([0.0, 1, 0, 1])), {}, "targets of type torch.float32"),
        (make_faces(classes=3), {}, "2 outputs do not fit the target's 3 classes"),
        (make_faces(), {"epochs": 0}, "epochs: 0"),
        (make_faces(), {"batch_size": 0}, "batch_size: 0"),
        (make_faces(), {"lr": -1.0}, "lr: -1.0"),
        (make_faces(), {"device": "cuda:77"}, "device: 'cuda:77'"),
        (make_faces(), {"augment": "flp"}, "Did you mean 'flip'"),
        (make_faces(), {"validation": rows(targets=torch.tensor([0, 1, 0, 9]))}, "target 9"),
        (make_faces(), {"fairness": "parity"}, "fairness: str"),
        (rows(), {"fairness": lambda *a: a[0].sum()}, "number of groups is not known"),
    ],
)
def test_bad_input_is_refused_before_the_first_step(data, options, message):
    if isinstance(data, list) and data:
        source, data = (
            data,
            type("Loader", (), {"__len__": lambda s: 1, "__iter__": lambda s: iter(source)})(),
        )
    with pytest.raises(ValueError, match=message):
        train(data, NeverStepped(), **QUICK | options)


def test_a_misspelt_model_and_a_model_with_nothing_to_train(faces, small):
    with pytest.raises(ValueError, match="Did you mean 'resnet18'"):
        train(faces, "resnet-18", **QUICK)
    with pytest.raises(ValueError, match="requires_grad"):
        train(faces, small.requires_grad_(False), **QUICK)


def test_frozen_parameters_stay(faces, small):
    small.body.requires_grad_(False)
    trained = train(faces, small, **QUICK)
    assert torch.equal(trained.body[0].weight, small.body[0].weight)
    assert not torch.equal(trained.head.weight, small.head.weight)


def test_a_loss_that_is_not_a_number_stops_the_run_where_it_happened(faces):
    class Breaks(SmallNet):
        steps = 0

        def forward(self, x):
            self.steps += self.training
            return super().forward(x) * (float("nan") if self.steps == 5 else 1)

    with pytest.raises(FloatingPointError, match="epoch 2, step 2"):  # three batches an epoch
        train(faces, Breaks(), **QUICK)


def test_a_last_batch_of_one_image_is_left_out():
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="more than 1 value"):  # one image has no variance
        model(torch.rand(1, 3, 16, 16))
    assert np.isfinite(train(make_faces(9), model, **QUICK).history.loss).all()


def test_one_logit_is_trained_with_binary_cross_entropy(faces):
    model = train(faces, SmallNet(1), epochs=1, batch_size=24, lr=1e-9, progress=False)
    logits = predict(SmallNet(1), faces)  # dropout and batch statistics aside
    assert model.history.loss[0] == pytest.approx(
        F.binary_cross_entropy(torch.from_numpy(logits.y_score), torch.from_numpy(faces.targets).double()).item(),
        abs=0.15,
    )
    assert model.classes == ("calm", "glad")


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_fairness_loss_gets_logit_groups_and_label_and_moves_the_model(outputs):
    faces, seen = make_faces(24), []

    def parity(logit, sens, label):
        seen.append((logit.shape, sens.shape, label.shape, sens.sum(1), sens.dtype, label.dtype))
        rates = (logit.sigmoid() * sens).sum(0) / sens.sum(0).clamp(min=1)
        return ((rates - rates.mean()) ** 2).sum()

    def run(strength):
        return train(faces, SmallNet(outputs), fairness=parity, strength=strength, **QUICK)

    plain = train(faces, SmallNet(outputs), **QUICK)
    assert bytes_of(run(0.0)) == bytes_of(plain) != bytes_of(run(50.0))
    for logit, sens, label, total, sens_type, label_type in seen:
        assert logit == label == (8, 1) and sens == (8, 3)
        assert (total == 1).all() and sens_type == label_type == torch.float32


def test_the_fairness_logit_of_two_outputs_is_their_difference(faces):
    from helpers.models.training import Task, task_loss

    logits = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    target, group = torch.arange(6) % 2, torch.arange(6) % 3
    kept = {}
    task = Task(lambda logit, sens, label: kept.update(l=logit, s=sens, y=label) or logit.sum(), 2.0, 4)
    difference = (logits[:, 1] - logits[:, 0])[:, None]
    assert torch.isclose(task(logits, target, group), task_loss(logits, target) + 2 * difference.sum())
    assert torch.equal(kept["l"], difference) and torch.equal(kept["y"][:, 0].long(), target)
    assert torch.equal(kept["s"].argmax(1), group) and kept["s"].shape == (6, 4)


def test_training_scores_are_those_of_the_table():
    from helpers.models.training import _rates, count

    truth, guess = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 0, 2])
    table = np.zeros((4, 4), dtype=np.int64)
    count(table, truth, guess)
    scores = _rates(table)
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)  # class 3 is not there


def test_a_trained_model_can_be_trained_on(faces):
    trained = train(faces, SmallNet(), **QUICK)
    again = train(faces, trained, **QUICK)
    assert bytes_of(again) != bytes_of(trained) and len(again.history) == 3


def cross_entropy(logits, target, group):
    return F.cross_entropy(logits, target)


def binary_cross_entropy(logits, target, group):
    return F.binary_cross_entropy_with_logits(logits[:, 0], target.to(logits.dtype))


@pytest.mark.parametrize("outputs, objective", [(1, binary_cross_entropy), (2, cross_entropy), (3, cross_entropy)])
def test_an_objective_that_is_cross_entropy_gives_the_bytes_of_none(outputs, objective):
    faces = make_faces(classes=max(2, outputs))
    given, none = (train(faces, SmallNet(outputs), objective=each, **QUICK) for each in (objective, None))
    assert bytes_of(given) == bytes_of(none)
    assert given.history.loss.equals(none.history.loss)


def test_an_objective_takes_the_place_of_the_cross_entropy_and_sees_every_row_in_line(faces):
    seen = []

    def turned(logits, target, group):
        seen.append((logits.shape, target, group))
        return F.cross_entropy(logits, 1 - target)

    options = QUICK | {"epochs": 12, "lr": 0.05}
    model = train(faces, SmallNet(), objective=turned, **options)
    assert (predict(model, faces).y_pred == faces.targets).mean() < 0.2  # it learned the opposite, as it was told to
    for shape, target, group in seen:
        assert shape == (8, 2) and target.dtype == group.dtype == torch.int64
    one_epoch = sorted((int(t), int(g)) for _, target, group in seen[:3] for t, g in zip(target, group, strict=True))
    assert one_epoch == sorted(zip(faces.targets.tolist(), faces.group.tolist(), strict=True))


def test_a_fairness_loss_is_added_to_the_objective(faces):
    from helpers.models.training import Task

    logits, target, group = torch.randn(6, 2), torch.arange(6) % 2, torch.arange(6) % 3
    task = Task(lambda logit, sens, label: logit.sum(), 2.0, 3, lambda logits, target, group: logits.square().sum())
    assert torch.isclose(task(logits, target, group), logits.square().sum() + 2 * (logits[:, 1] - logits[:, 0]).sum())


def test_a_checkpoint_of_another_objective_is_refused(tmp_path, faces, small):
    path = tmp_path / "state.pt"
    train(faces, small, checkpoint=path, objective=cross_entropy, **QUICK)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="objective was 'cross_entropy', is now None"):
        train(faces, small, checkpoint=path, **QUICK)
    with pytest.raises(ValueError, match="objective was 'cross_entropy', is now 'binary_cross_entropy'"):
        train(faces, small, checkpoint=path, objective=binary_cross_entropy, **QUICK)
    assert path.read_bytes() == before
    assert len(train(faces, small, checkpoint=path, objective=cross_entropy, **QUICK).history) == 3
