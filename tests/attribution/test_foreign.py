"""Where models of others look: the same maps as of the PyTorch original, Xplique's own on Keras, a planted truth, and refusals.

About 35 seconds on one thread, a third of them TensorFlow's import.
"""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.testing import assert_close

import helpers
from helpers.attribution import attribute, evaluate, random_maps, randomisation_curve
from helpers.attribution.method import METHODS, outside
from helpers.models import export, foreign
from tests.models.others import EMOTION, GENDER, path_of

QUICK = {
    "integrated_gradients": {"steps": 8},
    "smoothgrad": {"samples": 4},
    "square_grad": {"samples": 4},
    "vargrad": {"samples": 4},
    "gradient_shap": {"samples": 4},
    "rise": {"samples": 16},
    "kernel_shap": {"samples": 40, "segments": 4},
    "lime": {"samples": 40, "segments": 4},
    "feature_ablation": {"segments": 4},
    "shapley_value_sampling": {"samples": 2, "segments": 4},
    "sobol": {"designs": 2, "grid": 4},
    "hsic": {"designs": 16, "grid": 4},
    "occlusion": {"patch": 4, "stride": 4},
}
TARGET = [2, 0, 1]
FREE = [key for key, entry in METHODS.items() if not entry.needs_layers and not entry.needs_gradient]
GRADIENT = [key for key, entry in METHODS.items() if not entry.needs_layers and entry.needs_gradient]
INSIDE = [key for key, entry in METHODS.items() if entry.needs_layers]


@pytest.fixture(scope="module")
def small():
    """Three classes; the score depends on the image through two convolutions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU())
        model = nn.Sequential(*layers, nn.AvgPool2d(3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 3)).eval()
        with torch.no_grad():
            for layer in (model[0], model[4], model[9]):
                layer.weight.mul_(4)  # at the initial scale the logits hardly depend on the image
    return model


@pytest.fixture(scope="module")
def example():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def onnx_model(small, example, tmp_path_factory):
    return foreign.load(export(small, tmp_path_factory.mktemp("onnx") / "small.onnx", example))


@pytest.fixture(scope="module")
def weights(small, tmp_path_factory):
    """The network from a file of its weights."""
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save(small.state_dict(), path)
    return foreign.load(path, architecture=copy.deepcopy(small), classes=("a", "b", "c"))


@pytest.fixture(scope="module")
def program(small, example):
    return foreign.load(torch.export.export(small, (example,)))


def options_of(name):
    return QUICK.get(name, {})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, backend", FREE)
def test_maps_of_an_onnx_file_are_those_of_the_original(name, backend, small, onnx_model, images):
    ours, theirs = (attribute(m, images, TARGET, name, backend, **options_of(name)) for m in (onnx_model, small))
    assert theirs.abs().max() > 0
    assert_close(ours, theirs, rtol=0, atol=2e-3 * theirs.abs().max().item())


@pytest.mark.parametrize("name, backend", GRADIENT + INSIDE)
def test_what_an_onnx_file_cannot_give_is_refused_with_what_works(name, backend, onnx_model, images):
    with pytest.raises(ValueError, match="model: .*(no gradient reaches the image|looks at layers).*work .*") as error:
        attribute(onnx_model, images, TARGET, name, backend)
    named = str(error.value).rpartition("work ")[2].split(", ")
    assert set(named) == {known for known, _ in FREE} and {"occlusion", "rise", "kernel_shap", "lime"} <= set(named)


def test_the_methods_named_in_refusals():
    assert outside(gradient=False).split(", ") == sorted({name for name, _ in FREE})
    assert outside(gradient=True).split(", ") == sorted({name for name, _ in FREE + GRADIENT})
    assert {"grad_cam", "eigen_cam", "lrp", "deeplift", "guided_backprop", "layer_conductance"} <= {name for name, _ in INSIDE}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, backend", [key for key in FREE + GRADIENT if key[1] != "xplique"])
def test_weights_in_an_architecture_and_exported_programs_keep_their_gradients(name, backend, small, weights, program, images):
    expected = attribute(small, images, TARGET, name, backend, **options_of(name))
    for model in (weights, program):
        found = attribute(model, images, TARGET, name, backend, **options_of(name))
        assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("name, backend", INSIDE)
def test_layers_are_seen_in_an_architecture_and_not_in_a_program(name, backend, small, weights, program, images):
    assert_close(attribute(weights, images, TARGET, name, backend), attribute(small, images, TARGET, name, backend))
    with pytest.raises(ValueError, match=f"model: {name} looks at layers.*without them work .*integrated_gradients"):
        attribute(program, images, TARGET, name, backend)


@pytest.mark.filterwarnings("ignore")
def test_judging_and_audit_agree_with_the_original(small, onnx_model, images, square):
    maps = {"occlusion": attribute(small, images, TARGET, "occlusion", patch=4, stride=2), "chance": random_maps(images)}
    masks = square.expand(3, 16, 16)
    metrics = ["deletion", "insertion", "pointing_game", "relevance_mass"]
    ours, theirs = (evaluate(model, images, maps, TARGET, metrics, masks, steps=10) for model in (onnx_model, small))
    assert set(theirs.metric) == set(metrics) and theirs.value.notna().all()
    np.testing.assert_allclose(ours.value, theirs.value, atol=1e-5)
    ours, theirs = (evaluate(model, images, maps, TARGET, masks=masks, steps=10, samples=8) for model in (onnx_model, small))
    assert list(ours.metric) == list(theirs.metric)


def test_nothing_is_said_about_weights_that_cannot_be_seen(onnx_model, images):
    maps = attribute(onnx_model, images, TARGET, "occlusion", patch=4, stride=4)
    how = ("occlusion", {"patch": 4, "stride": 4})
    frame = evaluate(onnx_model, images, maps, TARGET, "model_randomisation", explain=how)
    assert frame.value.isna().all()
    assert {row["reason"] for row in frame.attrs["undefined"]} == {"the model has no weights that PyTorch can see"}
    with pytest.raises(ValueError, match="model: it has no weights that PyTorch can see to randomise"):
        randomisation_curve(onnx_model, images, how, TARGET)


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
@pytest.mark.parametrize("tensors", [False, True])
def test_occlusion_finds_the_patch_that_a_function_looks_at(outputs, tensors, images, square):
    def looks(array):
        bright = array[..., 8:14, 2:8].mean((1, 2, 3))
        if outputs == "logits":
            return bright
        p = 0.2 + 0.6 * bright
        return torch.stack([1 - p, p], 1) if tensors else np.stack([1 - p, p], 1)

    model = foreign.load(looks, outputs=outputs, tensors=tensors, classes=("dark", "bright"))
    maps = attribute(model, images, 1, "occlusion", patch=2, stride=1)
    near = torch.zeros_like(square)
    near[7:15, 1:9] = True  # a patch of two pixels that overlaps the square
    assert (maps[:, ~near].abs() < 1e-5).all() and (maps[:, square] > 1e-4).all()
    scores = evaluate(model, images, maps, 1, ["pointing_game", "relevance_mass"], square.expand(3, 16, 16))
    assert scores.value[scores.metric == "pointing_game"].eq(1).all() and scores.value.min() > 0.7
    if tensors:
        assert attribute(model, images, 1, "saliency")[:, ~square].abs().max() == 0
    else:
        with pytest.raises(ValueError, match="no gradient"):
            attribute(model, images, 1, "saliency")


def test_what_is_explained_of_probabilities_is_their_logarithm(images):
    """d log p / dx of p = softmax(w x): that of log-softmax, which a sum of probabilities times a logit's slope gives."""
    weight = torch.randn(3, 3 * 16 * 16, generator=torch.Generator().manual_seed(3)) / 10
    model = foreign.load(lambda x: (x.flatten(1) @ weight.T).softmax(1), outputs="probabilities", tensors=True)
    found = attribute(model, images, TARGET, "saliency", absolute=False, channels=True)
    p = (images.flatten(1) @ weight.T).softmax(1)
    expected = weight[TARGET] - p @ weight
    assert_close(found.flatten(1), expected, atol=1e-5, rtol=1e-4)


# --- Keras ---


def keras_networks():
    """Small networks by name: three logits, probabilities, one logit, channels first, grey and resized."""
    from helpers.models.keras_network import import_tensorflow

    import_tensorflow()
    import keras

    layers = keras.layers

    def network(outputs=3, last=None, shape=(16, 16, 3)):
        rng = np.random.default_rng(0)
        made = keras.Sequential(
            [
                keras.Input(shape),
                layers.Conv2D(4, 3, activation="relu"),
                layers.AveragePooling2D(2),
                layers.Flatten(),
                layers.Dense(outputs, activation=last),
            ]
        )
        made.set_weights([rng.normal(0, 0.3, weight.shape) for weight in made.get_weights()])
        return made

    first = keras.Sequential([keras.Input((3, 16, 16)), layers.Permute((2, 3, 1)), network()])
    norm = {"scale": 255, "mean": (120, 110, 100), "std": (60, 70, 80), "channels": "BGR"}
    return {
        "logits": foreign.load(network(), **norm),
        "probabilities": foreign.load(network(last="softmax"), outputs="probabilities", mean=0.5, std=0.5),
        "one probability": foreign.load(network(1, "sigmoid"), outputs="probabilities"),
        "one logit": foreign.load(network(1)),
        "channels first": foreign.load(first, **norm),
        "column": foreign.load(network(last="sigmoid"), outputs="probabilities", column=1),
        "sums": foreign.load(network(), classes={"second": 1, "others": (0, 2)}),
        "grey, smaller": foreign.load(network(shape=(12, 10, 1)), channels="grey"),
    }


@pytest.fixture(scope="module")
def keras_models():
    return keras_networks()


KERAS = ["logits", "probabilities", "one probability", "one logit", "channels first", "column", "sums", "grey, smaller"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KERAS)
def test_gradients_of_a_keras_model_are_differences_of_its_scores(kind, keras_models, images):
    model = keras_models[kind]
    x = images[:1].clone().requires_grad_()
    [slope] = torch.autograd.grad(model(x)[:, 0].sum(), x)
    generator = torch.Generator().manual_seed(4)
    for _ in range(3):
        way = torch.randn(1, 3, 16, 16, generator=generator)
        with torch.no_grad():
            up, down = (model(images[:1] + sign * 1e-3 * way)[0, 0] for sign in (1, -1))
        assert (slope * way).sum().item() == pytest.approx(((up - down) / 2e-3).item(), rel=0.05, abs=0.02)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KERAS)
def test_the_keras_model_that_xplique_sees_is_the_same_model(kind, keras_models, images):
    from helpers.attribution.score import Score
    from helpers.attribution.xplique import rows
    from helpers.models.keras_network import native

    assert native(keras_models[kind]) is native(keras_models[kind])
    assert_close(
        torch.from_numpy(np.array(native(keras_models[kind])(rows(images)))), Score(keras_models[kind])(images).detach(),
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip


NATIVE = [
    ("saliency", {}, "captum"),
    ("saliency", {"absolute": False}, "captum"),
    ("gradient_input", {}, "captum"),
    ("integrated_gradients", {"steps": 16}, "captum"),
    ("occlusion", {"patch": 4, "stride": 4}, "captum"),
    ("smoothgrad", {"noise": 0.0, "samples": 2}, "torch"),
    ("square_grad", {"noise": 0.0, "samples": 2}, "torch"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KERAS)
def test_xpliques_own_maps_on_keras_are_those_of_our_loops(kind, keras_models, images, monkeypatch):
    import xplique.wrappers

    def never(*args, **kwargs):
        raise AssertionError("the model went through PyTorch")

    monkeypatch.setattr(xplique.wrappers, "TorchWrapper", never)
    targets = [1, 0, 1]
    for name, options, other in NATIVE:
        ours = {"quadrature": "trapezoid"} if name == "integrated_gradients" else {}
        theirs = attribute(keras_models[kind], images, targets, name, "xplique", **options)
        found = attribute(keras_models[kind], images, targets, name, other, **options, **ours)
        assert theirs.shape == (3, 16, 16)
        for a, b in zip(found, theirs, strict=True):
            assert spearmanr(a.flatten(), b.flatten()).statistic >= 0.99, name
        assert_close(found, theirs, rtol=1e-2, atol=1e-3 * theirs.abs().max().item())


@pytest.mark.filterwarnings("ignore")
def test_every_method_of_xplique_and_every_gradient_works_on_keras_or_is_refused(keras_models, images):
    model = keras_models["logits"]
    for name, backend in [key for key in FREE + GRADIENT if key[1] == "xplique" or key in GRADIENT and key[1] == "torch"]:
        maps = attribute(model, images, TARGET, name, backend, **options_of(name))
        assert maps.shape == (3, 16, 16) and torch.isfinite(maps).all() and maps.abs().max() > 0, name
    for name, backend in INSIDE:
        if "layer" in METHODS[name, backend].defaults and name != "guided_grad_cam":
            maps = attribute(model, images, TARGET, name, backend)
            assert maps.shape == (3, 16, 16) and torch.isfinite(maps).all(), name
        else:
            with pytest.raises(ValueError, match="model: .*(looks at layers|PyTorch does not show)"):
                attribute(model, images, TARGET, name, backend)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_grad_cam_of_a_keras_model_is_its_definition_and_xpliques(kind, keras_models, images):
    import tensorflow as tf
    from torch.nn.functional import interpolate
    from xplique.attributions import GradCAM

    model, network = keras_models[kind], keras_models[kind].keras
    convolution, last = network.layers[0], network.layers[-1]
    found = attribute(model, images, TARGET, "grad_cam", layer=convolution.name)
    front = tf.keras.Model(network.inputs, [convolution.output, network.outputs[0]])
    taken = model.preprocessing(images).numpy()
    with tf.GradientTape() as tape:
        maps, output = front(taken)
        output = tf.math.log(output) if kind == "probabilities" else output
        score = tf.reduce_sum(tf.gather(output, TARGET, batch_dims=1))
    slope = tape.gradient(score, maps).numpy()
    cam = np.maximum((slope.mean((1, 2), keepdims=True) * maps.numpy()).sum(-1), 0)
    expected = interpolate(torch.from_numpy(cam)[:, None], size=(16, 16), mode="bilinear", align_corners=False)[:, 0]
    assert expected.max() > 0
    assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.max().item())
    if kind == "logits":  # Xplique explains what the network puts out, and enlarges by cubic curves
        theirs = GradCAM(network, conv_layer=convolution.name)(taken, np.eye(3, dtype=np.float32)[TARGET])
        np.testing.assert_allclose(theirs, tf.image.resize(cam[..., None], (16, 16), "bicubic"), rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match=f"layer: '{last.name}' puts out no maps; .*{convolution.name}"):
        attribute(model, images, TARGET, "grad_cam", layer=last.name)
    with pytest.raises(ValueError, match="layer: unknown name 'conv'"):
        attribute(model, images, TARGET, "grad_cam", layer="conv")


@pytest.mark.filterwarnings("ignore")
def test_a_layer_that_a_way_leads_past_is_refused_and_not_taken(images):
    import keras

    entry = keras.Input((16, 16, 3))
    first = keras.layers.Conv2D(4, 3, padding="same", name="first")(entry)
    past = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="inside")(first)
    total = keras.layers.Add(name="total")([first, past])
    model = foreign.load(keras.Model(entry, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(total))))
    with pytest.raises(ValueError, match="some of the way from image to score leads past 'inside'; name a layer that all"):
        attribute(model, images, TARGET, "layer_cam", layer="inside")
    assert_close(
        attribute(model, images, TARGET, "layer_cam"), attribute(model, images, TARGET, "layer_cam", layer="total")
    )
    assert_close(model.split("first")[0](images), model(images), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="only a Keras model can be split"):
        foreign.load(nn.Flatten()).split()


# --- Networks in real use ---


@pytest.mark.filterwarnings("ignore")
def test_where_the_networks_of_others_look_on_photographs():
    """Hiding what a map names first takes more from the score than hiding pixels at random.

    (Plain saliency of the emotion network does not do better than chance there.)
    """
    means = (122.781998, 117.000999, 104.297997)
    gender = foreign.load(path_of(GENDER), scale=255, mean=means, std=256, outputs="probabilities", classes=("female", "male"))
    emotion = foreign.load(path_of(EMOTION), channels="grey", mean=0.5, std=0.5, outputs="probabilities")
    for model, size, makers in (
        (gender, 32, {"occlusion": {"patch": 4, "stride": 2}, "rise": {"samples": 300}}),
        (emotion, 64, {"gradient_input": {"backend": "xplique"}, "smoothgrad": {"backend": "xplique", "samples": 8}}),
    ):
        faces = helpers.load_faces("orl", image_size=size, split="test")
        images = faces[:][0][:24:4]
        maps = {name: attribute(model, images, method=name, **options) for name, options in makers.items()}
        maps["chance"] = random_maps(images)
        means_of = evaluate(model, images, maps, metrics="deletion", steps=10, baseline="mean").groupby("method").value.mean()
        print(means_of)
        for name, found in maps.items():
            assert found.shape == (6, size, size) and torch.isfinite(found).all()
            assert name == "chance" or means_of[name] < means_of["chance"]
