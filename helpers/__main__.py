"""The public verbs as a command line: `python -m helpers train|audit|attribute|debias|report|leaderboard|fetch|app --help`.

Exit codes: 0 it worked, 2 wrong usage or input (one or two sentences on stderr), 130 interrupted, 1 anything
unexpected.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

import helpers
from helpers.files import check, whole
from helpers.names import choose

app = typer.Typer(
    help="Candor: is a face classifier biased, where does it look, and what makes it fairer?",
    epilog="Data is a name (illustrated, orl, bfw, celeba, fairface, utkface, lfw), a folder class/…/image, or a CSV or "
    "Parquet file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # "[all]" in a help text is meant as it stands
)

Data = Annotated[
    str | None, typer.Option(help="Name of a data set, or the path of a folder, CSV or Parquet file.")
]
Root = Annotated[Path | None, typer.Option(help="Where a named data set lies.")]
Target = Annotated[str | None, typer.Option(help="Column to predict.")]
Protected = Annotated[
    list[str] | None, typer.Option(help="Column whose groups are compared; repeat it to cross several.")
]
ImageSize = Annotated[int | None, typer.Option(min=8, max=1024, help="Side of the images in pixels (64).")]
Seed = Annotated[int | None, typer.Option(min=0, help="Decides splits, weights and whatever is drawn (0).")]
Option = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="NAME=VALUE",
        help="Further option of the data set, such as n=500; repeatable.",
    ),
]
Split = Annotated[str, typer.Option(help="train, validation, test or all.")]
Model = Annotated[
    Path, typer.Option(help="A model saved by `train` or `debias` (.safetensors, its .json beside it).")
]
AnyModel = Annotated[
    Path,
    typer.Option(help="A saved model (.safetensors, its .json beside it), or another's (.onnx, .keras, .h5)."),
]
Prepared = Annotated[
    Path | None,
    typer.Option(
        "--preprocessing",
        help="For another's model: a JSON file of scale, mean, std, size, layout, channels, outputs, output, column, classes.",
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, …; by default what is there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

_debug = False


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(helpers.__version__)
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
]


@app.callback()
def flags(
    debug: Debug = False, version: Version = False
) -> None:  # no docstring: it would replace the app's help
    global _debug
    _debug = debug


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Where the model goes; a .json is written beside it.")] = Path(
        "model.safetensors"
    ),
    data: Data = "illustrated",
    root: Root = None,
    target: Target = None,
    protected: Protected = None,
    image_size: ImageSize = None,
    seed: Seed = None,
    option: Option = None,
    architecture: Annotated[str, typer.Option(help="A torchvision ResNet.")] = "resnet18",
    weights: Annotated[str | None, typer.Option(help="Pretrained weights: DEFAULT, or a local file.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 5,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    fairness: Annotated[
        str | None,
        typer.Option(help="Add a fairness loss: norm, kl, lagrangian, … (helpers.losses.LOSSES)."),
    ] = None,
    equalize: Annotated[
        str, typer.Option(help="What it makes equal: a statistic as an audit calls it, or equalized_odds.")
    ] = "selection_rate",
    strength: Annotated[float, typer.Option(help="Weight of the fairness loss.")] = 1.0,
    gap: Annotated[
        float | None, typer.Option(min=0, max=1, help="With lagrangian: the gap that is wanted. [0.05]")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File from which an interrupted training goes on.")
    ] = None,
    device: Device = None,
) -> None:
    """Train a classifier on the train split, watch it on the validation split, and save it."""
    check(out, "--out")
    if gap is not None and fairness != "lagrangian":
        raise ValueError("--gap: only --fairness lagrangian takes a wanted gap; the others take --strength")
    loss = None
    if fairness is not None:
        from helpers import losses

        loss = losses.named(fairness, equalize, **({} if gap is None else {"gap": gap}))
    wanted = wish(None, data, root, target, protected, image_size, seed, option)
    faces, held_out = load(wanted, "train"), load(wanted, "validation")
    from helpers import models

    model: Any = architecture
    if weights is not None:
        model = models.build(architecture, faces.classes, weights=weights, seed=wanted["seed"])
    trained = models.train(
        faces, model, validation=held_out, epochs=epochs, batch_size=batch_size, lr=lr, seed=wanted["seed"],
        device=device,
        checkpoint=checkpoint,
        fairness=loss,
        strength=strength,
    )  # fmt: skip
    wanted |= {
        "target": faces.target,
        "protected": [faces.protected] if isinstance(faces.protected, str) else list(faces.protected),
    }
    path = models.save(trained, out, loaded=remembered(wanted))
    typer.echo(trained.history.round(4).to_string(index=False))
    typer.echo(f"Saved {path}")


@app.command()
def audit(
    predictions: Annotated[
        Path | None,
        typer.Argument(help="CSV, TSV or Parquet with labels, predictions and groups; or give --model."),
    ] = None,
    y_true: Annotated[str, typer.Option(help="Column of the labels.")] = "y_true",
    y_pred: Annotated[str, typer.Option(help="Column of the predictions.")] = "y_pred",
    group: Annotated[
        list[str] | None, typer.Option(help="Column of the groups; repeat it to cross several. [group]")
    ] = None,
    positive: Annotated[str | None, typer.Option(help="The label that counts as positive. [1]")] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="Column of another model's predictions: also print what it changes, and for whom."),
    ] = None,
    small: Annotated[int, typer.Option(min=0, help="Flag values on fewer images than this.")] = 50,
    model: Annotated[
        Path | None,
        typer.Option(help="Audit this saved model, or another's (.onnx, .keras, .h5), on --data instead of a file."),
    ] = None,
    preprocessing: Prepared = None,
    data: Data = None,
    root: Root = None,
    target: Target = None,
    protected: Protected = None,
    image_size: ImageSize = None,
    seed: Seed = None,
    option: Option = None,
    split: Split = "test",
    statistics: Annotated[
        list[str] | None, typer.Option("--statistic", help="Only this statistic; repeatable. [all]")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Level of the intervals, between 0 and 1.")] = 0.95,
    n_boot: Annotated[int, typer.Option(min=1, help="Bootstrap replicates.")] = 1000,
    out: Annotated[
        Path | None, typer.Option(help="Also write here: .csv (statistics by group), .json (all) or .md.")
    ] = None,
    device: Device = None,
) -> None:
    """Compare a classifier's statistics between groups, with intervals, and print them as Markdown."""
    if (predictions is None) == (model is None):
        raise ValueError(
            "Give either a file of predictions or --model, for example: audit predictions.csv --group gender"
        )
    if out is not None:
        choose(check(out, "--out").suffix, (".csv", ".json", ".md"), "--out")
    settings = {"statistics": statistics or "all", "confidence": confidence, "n_boot": n_boot}
    if model is not None and compare is not None:
        raise ValueError("--compare: only with a file of predictions, which holds both models' answers")
    if predictions is not None:
        only_for_models = {
            "--data": data,
            "--root": root,
            "--target": target,
            "--protected": protected,
            "--option": option,
            "--preprocessing": preprocessing,
        }
        given = [name for name, value in only_for_models.items() if value]
        if given:
            raise ValueError(
                f"{', '.join(given)}: only with --model; the groups of a file are named by --group"
            )
        table, columns = read_predictions(predictions, y_true, y_pred, group or ["group"], compare)
        label, predicted, *groups = columns
        settings |= {"positive": as_label(positive, table[label]), "seed": seed or 0}
        if compare is not None:
            *groups, other = groups
            from helpers.bias import compare as changes

            both = table[predicted], table[other]
            change = changes(table[label], *both, table[groups], names=(predicted, other), **settings)
        judged = helpers.audit(table[label], table[predicted], table[groups], small=small, **settings)
    else:
        from helpers import models

        judge = read_model(model, preprocessing)
        wanted = wish(judge, data, root, target, protected, image_size, seed, option)
        faces = load(wanted, split, judge)
        found = models.predict(judge, faces, device=device)
        named = {} if positive is None else {"positive": choose(positive, faces.classes, "--positive")}
        judged = helpers.audit(
            found.y_true, found.y_pred, found.group, groups=faces.groups, classes=faces.classes,
            seed=wanted["seed"], small=small,
            **named, **settings,
        )  # fmt: skip
    typer.echo(judged.to_markdown())
    if compare is not None:
        typer.echo(change.to_markdown())
    if out is not None:
        write_audit(judged, out)


@app.command()
def attribute(
    model: AnyModel,
    out: Annotated[Path, typer.Option(help="The picture: .png, .svg or .pdf.")] = Path("attributions.png"),
    method: Annotated[
        list[str] | None, typer.Option(help="Attribution method; repeatable. [integrated_gradients]")
    ] = None,
    backend: Annotated[str, typer.Option(help="torch, captum, zennit, xplique or auto.")] = "auto",
    examples: Annotated[
        int, typer.Option(min=1, max=50, help="How many faces, from the groups and classes in turn.")
    ] = 4,
    data: Data = None,
    root: Root = None,
    target: Target = None,
    protected: Protected = None,
    image_size: ImageSize = None,
    seed: Seed = None,
    option: Option = None,
    split: Split = "test",
    preprocessing: Prepared = None,
) -> None:
    """Draw where a model looks: faces in rows, attribution methods in columns."""
    choose(check(out, "--out").suffix, (".png", ".svg", ".pdf"), "--out")
    from helpers import models
    from helpers.plots.attribution import panel
    from helpers.report.assemble import known, maps_by, row_labels, spread

    methods = known(method or ["integrated_gradients"], "--method")
    judge = read_model(model, preprocessing)
    wanted = wish(judge, data, root, target, protected, image_size, seed, option)
    faces = load(wanted, split, judge)
    chosen = faces.subset(spread(faces, examples, wanted["seed"]))
    found = models.predict(judge, chosen)
    images, _, _ = chosen[:]
    maps = maps_by(judge, images, methods, backend=backend, seed=wanted["seed"])
    labels = row_labels(chosen, found.y_pred, range(len(chosen)))
    drawing = panel(images, maps, labels, scale="map")
    with whole(out) as part:
        drawing.savefig(part, bbox_inches="tight")
    typer.echo(f"Wrote {out}")


@app.command()
def debias(
    model: Model,
    out: Annotated[Path | None, typer.Option(help="Folder for the edited models and table.csv.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Mitigation method; repeatable. [all]")] = None,
    data: Data = None,
    root: Root = None,
    target: Target = None,
    protected: Protected = None,
    image_size: ImageSize = None,
    seed: Seed = None,
    option: Option = None,
    split: Annotated[str, typer.Option(help="The split on which methods are fitted.")] = "validation",
    test_split: Annotated[str, typer.Option(help="The split on which they are compared.")] = "test",
    device: Device = None,
) -> None:
    """Edit a model towards equal treatment and print accuracy and gap before and after, with intervals."""
    if out is not None and out.exists() and not out.is_dir():
        raise ValueError(f"--out: {str(out)!r} is a file; give a folder")
    if out is not None:
        check(out / "table.csv", "--out")
    if split == test_split:
        raise ValueError(
            f"--split and --test-split are both {split!r}: faces that a method was fitted on cannot judge it"
        )
    from helpers import models
    from helpers.debiasing.debias import chosen_methods
    from helpers.debiasing.result import readable

    chosen_methods(method or "all")  # a misspelt one is named before any data is read
    judge = models.load(model)
    wanted = wish(judge, data, root, target, protected, image_size, seed, option)
    fit, test = load(wanted, split), load(wanted, test_split, judge)
    results = mitigate(judge, fit, method, wanted["seed"], device, test)
    typer.echo(as_markdown(readable(results)))
    if out is not None:
        for name, result in results.items():
            if result.model is not None:
                models.save(result.model, out / name, loaded=remembered(wanted), method=name)
        with whole(out / "table.csv") as part:
            results.to_frame().to_csv(part, index=False)
        typer.echo(f"Wrote the models and table.csv to {out}")
    if all(result.error for name, result in results.items() if name != "Vanilla"):
        raise ValueError("no method worked; the table says why")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Data set: bfw, celeba, fairface, utkface or lfw.")],
    root: Annotated[Path | None, typer.Option(help="Folder for it. [data/cache/NAME]")] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You have read its terms and accept them.")
    ] = False,
    url: Annotated[str | None, typer.Option(help="A link that you were given, with --sha256.")] = None,
    sha256: Annotated[str | None, typer.Option(help="SHA-256 of the file behind --url.")] = None,
) -> None:
    """Download a data set where that is allowed, else say what to request where and where to put it.

    Exit code 2 means that nothing was downloaded.
    """
    from helpers.data.fetch import fetch as get

    if not get(name, root, accept_licence=accept_licence, url=url, sha256=sha256, say=typer.echo):
        raise typer.Exit(2)


@app.command()
def report(
    model: AnyModel,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    method: Annotated[
        list[str] | None,
        typer.Option("--debias", help="Mitigation method for the before/after table; repeatable. [none]"),
    ] = None,
    attribution: Annotated[
        list[str] | None, typer.Option("--attribution", help="Attribution method; repeatable.")
    ] = None,
    data: Data = None,
    root: Root = None,
    target: Target = None,
    protected: Protected = None,
    image_size: ImageSize = None,
    seed: Seed = None,
    option: Option = None,
    split: Split = "test",
    preprocessing: Prepared = None,
    device: Device = None,
) -> None:
    """Write one self-contained HTML page: faces, audit, where the model looks, what mitigation changed."""
    check(out, "--out")
    judge = read_model(model, preprocessing)
    wanted = wish(judge, data, root, target, protected, image_size, seed, option)
    faces = load(wanted, split, judge)
    results = None
    if method:
        if split == "validation":
            raise ValueError(
                "--split validation: mitigation is fitted on that split; judge it on another one"
            )
        results = mitigate(judge, load(wanted, "validation"), method, wanted["seed"], device)
    chosen = {"attributions": attribution} if attribution else {}
    helpers.report(judge, faces, out, results=results, seed=wanted["seed"], device=device, **chosen)
    typer.echo(f"Wrote {out}")


@app.command()
def leaderboard(
    profile: Annotated[
        str, typer.Option(help="quick (24 pictures, one training, cheap methods) or full (96, three, all).")
    ] = "quick",
    method: Annotated[list[str] | None, typer.Option(help="Attribution method; repeatable. [all]")] = None,
    backends: Annotated[str, typer.Option(help="auto (one a method) or all.")] = "auto",
    images: Annotated[int | None, typer.Option(min=4, help="Pictures, a multiple of 4, in place of the profile's.")] = None,
    trainings: Annotated[
        int | None, typer.Option(min=1, help="Networks of each problem, in place of the profile's.")
    ] = None,
    most: Annotated[
        int | None, typer.Option(min=0, help="Leave out methods of more passes an image; 0: none. [profile's]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for leaderboard.csv, .md, .png and details.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of faces, sampled methods and intervals.")] = 0,
) -> None:
    """Rank attribution methods by whether they find the known cause of networks trained on drawn faces."""
    if out is not None:
        if out.exists() and not out.is_dir():
            raise ValueError(f"--out: {str(out)!r} is a file; give a folder")
        check(out / "leaderboard.csv", "--out")
    from helpers.leaderboard import leaderboard as rank

    board = rank(
        method or "all", profile=profile, images=images, seeds=None if trainings is None else range(trainings), most=most,
        backends=backends, seed=seed,
    )  # fmt: skip
    typer.echo(board.models.round(3).to_string(index=False))
    typer.echo("\n" + board.to_markdown())
    if out is not None:
        from helpers.plots import use

        use()
        board.save(out)
        typer.echo(f"Wrote {out}")


@app.command("app")
def explorer(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on. [the first free one from 8866]")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; whoever reaches another one than this machine's can use the page.")
    ] = "127.0.0.1",
    data: Annotated[str | None, typer.Option(help="What the page opens with: a name, or a path within --data-root.")] = None,
    model: Annotated[str | None, typer.Option(help="Model it opens with: a path within --data-root.")] = None,
    target: Target = None,
    protected: Annotated[str | None, typer.Option(help="Column whose groups are compared.")] = None,
    image_size: ImageSize = None,
    seed: Seed = None,
    data_root: Annotated[Path, typer.Option(help="The only folder that visitors may name data and models in.")] = Path("."),
    pool: Annotated[int, typer.Option(min=0, max=8, help="Pages kept ready for visitors to come; each takes memory.")] = 1,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Serve the explorer, a web page to look at a model with, until Ctrl-C."""
    from helpers.explorer.serve import serve

    asked = {
        "data": data, "model": model, "target": target, "protected": protected, "image_size": image_size, "seed": seed,
    }  # fmt: skip
    given = {name: value for name, value in asked.items() if value is not None}
    serve(host=host, port=port, data_root=data_root, browser=browser, pool=pool, say=typer.echo, **given)


def wish(model, data, root, target, protected, image_size, seed, option=None) -> dict[str, Any]:
    """What the user asked for; what they left open is as when the model was trained, then the default.

    The seed and the options matter here as much as the data: they decide who is in which split, so others
    would let people whom the model was trained on into its test.
    """
    given = {
        "data": data,
        "root": None if root is None else str(root),
        "target": target,
        "protected": list(protected) if protected else None,
        "image_size": image_size,
        "seed": seed,
    }
    before = (getattr(model, "info", None) or {}).get("loaded") or {}
    default = {"data": "illustrated", "image_size": 64, "seed": 0}
    other_data = data is not None and data != before.get("data")
    if other_data:  # another data set has other columns
        before = {name: value for name, value in before.items() if name in ("image_size", "seed")}
    return {
        name: value
        if value is not None
        else before.get(name)
        if before.get(name) is not None
        else default.get(name)
        for name, value in given.items()
    } | {"option": (before.get("option") or {}) | dict(pair(text) for text in option or [])}


def read_model(path: Path, preprocessing: Path | None):
    """A model of ours, or of another library by the ending of its file, with what a JSON file says about it."""
    from helpers import models
    from helpers.models import foreign, opening

    if path.suffix.casefold() not in (*opening.ALONE, *opening.PICKLES, ".pth", ".pt"):
        if preprocessing is not None:
            raise ValueError(f"--preprocessing: only for a model of another library; {path} is read as one of ours")
        return models.load(path)
    if preprocessing is None:
        return foreign.load(path)
    try:
        said = json.loads(preprocessing.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"--preprocessing: {preprocessing} is not readable JSON ({error})") from error
    accepted = [*foreign.Preprocessing.__dataclass_fields__, "outputs", "output", "column", "classes", "trusted"]
    if not isinstance(said, dict):
        raise ValueError(f"--preprocessing: {preprocessing} holds no object; accepted are the names {', '.join(accepted)}")
    return foreign.load(path, **{choose(name, accepted, "--preprocessing"): value for name, value in said.items()})


def load(wanted: dict[str, Any], split: str, judge=None):
    """`helpers.load_faces` of a name or a path, for the model `judge` if there is one."""
    from helpers.data import SOURCES

    name, root = wanted["data"], wanted["root"]
    path = Path(name).expanduser()
    if name.casefold() not in SOURCES and (path.exists() or path.suffix or len(path.parts) > 1):
        if root is not None:
            raise ValueError(f"--root: only with the name of a data set; --data is already the path {name!r}")
        if not path.exists():
            raise FileNotFoundError(f"--data: {name} does not exist")
        name, root = ("folder" if path.is_dir() else "table"), path
    name = choose(name, SOURCES, "--data (there is no such file or folder)")
    protected = wanted["protected"]
    given = {
        "root": root,
        "target": wanted["target"],
        "protected": protected[0] if protected and len(protected) == 1 else protected,
    }
    accepted = [
        key for key in signature(SOURCES[name]).parameters if key not in (*given, "split", "image_size", "seed")
    ]
    further = {choose(key, accepted, "--option"): value for key, value in wanted["option"].items()}
    faces = helpers.load_faces(
        name, split=split, image_size=wanted["image_size"], seed=wanted["seed"], **given, **further
    )
    known = tuple(getattr(judge, "classes", None) or faces.classes)
    if known != faces.classes:
        typer.echo(f"The model learned {' | '.join(known)}; here it is judged on {' | '.join(faces.classes)}", err=True)
    if faces.skipped:
        path, reason = faces.skipped[0]
        typer.echo(f"Skipped {len(faces.skipped)} files of {name}, such as {path}: {reason}", err=True)
    return faces


def pair(text: str) -> tuple[str, Any]:
    """ "name=value"; the value is read as JSON where it is JSON, else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--option: expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def remembered(wanted: dict[str, Any]) -> dict[str, Any]:
    """What a model's description keeps of its data: not where it lay, nor how many were drawn and how biased."""
    option = {name: value for name, value in wanted["option"].items() if name not in ("n", "correlation")}
    return {name: value for name, value in wanted.items() if name != "root"} | {"option": option}


def mitigate(model, faces, methods: list[str] | None, seed: int, device: str | None, test=None):
    """`helpers.debias` with every result, the model as it was first."""
    return helpers.debias(
        model, faces, methods=methods or "all", device=device or "cpu", test_dataloader=test, seed=seed
    )


def as_markdown(table) -> str:
    """A table of texts as Markdown."""

    def line(cells) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rule = "|" + "|".join(["---", *["---:"] * (table.shape[1] - 1)]) + "|"
    return "\n".join([line(table.columns), rule, *(line(row) for row in table.itertuples(index=False))])


def read_predictions(path: Path, y_true: str, y_pred: str, group: list[str], compare: str | None = None):
    """A table of predictions, and its own names of the columns for label, prediction, groups and the other model."""
    from helpers.data import tables

    table = tables.read(path, "predictions", "columns of labels, predictions and groups")
    wanted = {"--y-true": [y_true], "--y-pred": [y_pred], "--group": group, "--compare": [compare] * bool(compare)}
    columns = [
        choose(name, map(str, table.columns), argument)
        for argument, names in wanted.items()
        for name in names
    ]
    missing = table[columns].isna().sum()
    if missing.any():
        column = missing.idxmax()
        raise ValueError(
            f"predictions: column {column!r} of {path} is empty in {missing[column]} of {len(table)} rows"
        )
    return table, columns


def as_label(positive: str | None, labels) -> Any:
    """The positive label in the kind of the column: 1 for a column of numbers, "yes" for one of words."""
    values = {str(value): value for value in labels.unique()}
    if positive is None:
        positive = next((name for name in ("1", "1.0", "True") if name in values), None)
        if positive is None:
            if len(values) > 2:
                return 1  # every class takes its turn
            raise ValueError(
                f"--positive: name the label that counts as positive; there are {', '.join(sorted(values))}"
            )
    found = values[choose(positive, values, "--positive")]
    return found.item() if hasattr(found, "item") else found


def write_audit(judged, out: Path) -> None:
    """The audit as CSV, JSON (NaN becomes null) or Markdown, by the ending of the path."""
    with whole(out) as part:
        if out.suffix.lower() == ".csv":
            judged.by_group.to_csv(part, index=False)
        elif out.suffix.lower() == ".json":
            tables = {name: getattr(judged, name) for name in ("overall", "by_group", "gaps")}
            content = {
                name: table.astype(object).where(table.notna(), None).to_dict("records")
                for name, table in tables.items()
            }
            part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        else:
            part.write_text(judged.to_markdown() + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; `arguments` are those of the process by default."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with warnings.catch_warnings():
        warnings.showwarning = warn
        return run(arguments)


def warn(message, *where) -> None:
    """A warning as a sentence, without the line of code that it came from."""
    tqdm.write(f"Warning: {message}", file=sys.stderr)


def run(arguments: list[str]) -> int:
    try:
        import matplotlib

        matplotlib.use("Agg")  # a command line has no window, and a server no display
        app(args=arguments, prog_name="python -m helpers")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        if code == 130:
            print("Interrupted.", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except (ValueError, FileNotFoundError, PermissionError, ConnectionError, ModuleNotFoundError) as error:
        if _debug:
            traceback.print_exc()
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        traceback.print_exc()
        print(
            f"Unexpected error ({type(error).__name__}). If it is a fault of Candor, please report it with "
            "the lines above.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
