"""The public verbs as a command line: `python -m helpers --help`, `python -m helpers audit --help`, ….

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
    epilog="Data is a name (illustrated, orl, bfw, celeba, fairface, utkface, lfw), a folder class/…/image, a CSV or Parquet "
    "file, or a JSON file that says exactly which rows (every report and saved model has one).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # "[all]" in a help text is meant as it stands
)

Data = Annotated[
    str | None,
    typer.Option(help="Name of a data set, the path of a folder, CSV or Parquet file, or a recipe (.json) of exact rows."),
]
Root = Annotated[Path | None, typer.Option(help="Where a named data set, or the data of a recipe, lies.")]
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
def prepare(
    source: Annotated[str, typer.Argument(help="Folder of photographs, CSV or Parquet file with a column path, or a data set.")],
    out: Annotated[Path, typer.Option(help="Folder for the faces, faces.csv and missed.csv.")] = Path("prepared"),
    size: Annotated[int, typer.Option(min=8, max=1024, help="Side of the aligned faces in pixels.")] = 128,
    which: Annotated[
        str, typer.Option(help="Of several faces in a photograph: largest, all, or one (then none of them).")
    ] = "largest",
    labels: Annotated[Path | None, typer.Option(help="For a folder: table of path and attributes.")] = None,
    protected: Annotated[list[str] | None, typer.Option(help="Column to count by; repeatable.")] = None,
    identity: Annotated[str | None, typer.Option(help="Column that says who is shown. [identity]")] = None,
    root: Annotated[Path | None, typer.Option(help="Where a table's paths start from, or a data set lies.")] = None,
    margin: Annotated[float, typer.Option(min=0, help="What is kept around a face, as a share of its side.")] = 0.2,
    upsample: Annotated[
        int, typer.Option(min=0, max=3, help="Double the photographs so often, to find faces below 80 pixels.")
    ] = 0,
    smallest: Annotated[float, typer.Option(min=0, help="Leave out faces with fewer pixels than this.")] = 0,
    on_error: Annotated[str, typer.Option(help="skip lists unreadable photographs, raise stops.")] = "skip",
) -> None:
    """Find, align and crop the faces in photographs; print by group how many were found.

    An interrupted run goes on where it was. The result is read by --data OUT/faces.csv.
    """
    from helpers.data.preparing import prepare as work

    done = work(
        source, out, size=size, which=which, labels=labels, protected=protected, identity=identity, root=root, margin=margin,
        upsample=upsample, smallest=smallest, on_error=on_error,
    )  # fmt: skip
    typer.echo(done.to_markdown())
    for note in done.notes:
        typer.echo(note)
    typer.echo(f"{len(done.found)} faces: {out / 'faces.csv'}")
    typer.echo(f"{len(done.missed)} photographs missed, each with its reason: {out / 'missed.csv'}")


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
    balance: Annotated[
        str | None, typer.Option(help="What comes equally often in an epoch: group, class or cell (class × group). [none]")
    ] = None,
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
    faces, held_out = load(wanted, "train"), load(wanted, "validation", needed=False)
    from helpers import models

    model: Any = architecture
    if weights is not None:
        model = models.build(architecture, faces.classes, weights=weights, seed=wanted["seed"])
    trained = models.train(
        faces, model, validation=held_out, epochs=epochs, batch_size=batch_size, lr=lr, seed=wanted["seed"],
        device=device,
        checkpoint=checkpoint,
        balance=balance,
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
def card(
    out: Annotated[Path | None, typer.Option(help="The card: .md, .html (with its figure) or .json. [printed]")] = None,
    data: Data = "illustrated",
    root: Root = None,
    target: Target = None,
    protected: Protected = None,
    image_size: ImageSize = None,
    seed: Seed = None,
    option: Option = None,
    split: Annotated[str, typer.Option(help="The split that the card describes: train, validation, test or all.")] = "train",
    test_split: Annotated[str, typer.Option(help="The split that shall share nobody with it (but for --split all).")] = "test",
    about: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TEXT", help="What you know beside the data, such as licence=…, purpose=…; repeatable."),
    ] = None,
) -> None:
    """Look at the data first: counts, holes, sizes, light by group, copies, leaks, suspicious labels, open questions."""
    if out is not None:
        choose(check(out, "--out").suffix, (".md", ".html", ".json"), "--out (its ending)")
    from helpers.data import card as look
    from helpers.data import table_card, tables
    from helpers.data.labels import missing

    known = dict(named(text, "--about") for text in about or [])
    wanted = wish(None, data, root, target, protected, image_size, seed, option)
    if split == test_split:
        raise ValueError(f"--split and --test-split are both {split!r}; a split shares everybody with itself")
    found = None
    file = Path(data).expanduser()
    if file.is_file() and target is not None and protected:
        raw = tables.read(file, "--data", "a row an image")
        named_here = [column for column in (target, *protected) if column in raw]
        if any(missing(raw[column]).any() for column in named_here):
            typer.echo("Labels are missing, so the card is that of the table alone.", err=True)
            found = table_card(raw, target, protected, name=file.stem, about=known)
    if found is None:
        faces = load(wanted, split)
        found = look(faces, None if split == "all" else load(wanted, test_split), about=known, seed=wanted["seed"])
    if out is None:
        typer.echo(found.to_markdown())
    else:
        from helpers.plots import use

        use()
        typer.echo(f"Wrote {found.save(out)}")


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
    model: AnyModel,
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
    preprocessing: Prepared = None,
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
    judge = read_model(model, preprocessing)
    wanted = wish(judge, data, root, target, protected, image_size, seed, option)
    fit, test = load(wanted, split, part="mitigation"), load(wanted, test_split, judge)
    results = mitigate(judge, fit, method, wanted["seed"], device, test)
    typer.echo(as_markdown(readable(results)))
    if out is not None:
        rows = with_rows(judge, fit, test)
        for name, result in results.items():
            if result.model is not None and not (name == "Vanilla" and getattr(judge, "opaque", False)):  # it has its own file
                models.save(result.model, out / name, loaded=remembered(wanted), method=name, rows=rows)
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
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TEXT", help="What only you know of the model: intended_use=…, licence=…; repeatable."),
    ] = None,
    about: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TEXT", help="What only you know of the faces: collection=…, consent=…; repeatable."),
    ] = None,
) -> None:
    """Write one self-contained HTML page: use, faces, audit, where the model looks, what mitigation changed.

    Beside it go the model's card (.card.md) and a .data.json that says exactly which faces these were, for --data.
    """
    check(out, "--out")
    from helpers.data import recipe
    from helpers.report.stated import statements

    stated, told = (dict(named(text, name) for text in given or []) for given, name in ((state, "--state"), (about, "--about")))
    statements(stated)

    judge = read_model(model, preprocessing)
    wanted = wish(judge, data, root, target, protected, image_size, seed, option)
    faces = load(wanted, split, judge)
    results = None
    if method:
        if split == "validation":
            raise ValueError(
                "--split validation: mitigation is fitted on that split; judge it on another one"
            )
        fit = load(wanted, "validation", part="mitigation")
        results = mitigate(judge, fit, method, wanted["seed"], device)
    chosen = {"attributions": attribution} if attribution else {}
    helpers.report(
        judge, faces, out, results=results, seed=wanted["seed"], device=device, stated=stated, about=told or None, **chosen
    )
    if method:
        recipe.write(out.with_suffix(".data.json"), with_rows(judge, fit, faces))
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


@app.command()
def benchmark(
    plan: Annotated[Path, typer.Argument(help="YAML file: data, biases, model, methods, seeds (docs/experiments.md).")],
    out: Annotated[Path, typer.Option(help="Folder of results; of an earlier run it is gone on with.")] = Path("experiments"),
    jobs: Annotated[int, typer.Option(help="Processes; -1 for one a core.")] = -1,
    backend: Annotated[str, typer.Option(help="loky (this machine), threading, dask or ray.")] = "loky",
    address: Annotated[str | None, typer.Option(help="Of a Dask or Ray cluster. [one on this machine]")] = None,
    confidence: Annotated[float, typer.Option(help="Of the intervals and the test of ranks.")] = 0.95,
) -> None:
    """Run mitigation methods on data sets, biases and seeds; write results.parquet, summary.md and figures.

    Every result is kept as soon as it is there: a run that was interrupted, or killed, goes on where it was.
    """
    from helpers import experiments
    from helpers.bias.settings import share
    from helpers.plots import experiments as drawings
    from helpers.plots import use
    from helpers.plots.show import png

    share(confidence, "confidence")
    results = experiments.run(experiments.read_plan(plan), out, jobs=jobs, backend=backend, address=address)
    text = experiments.to_markdown(results, confidence)
    use()
    figures = {"trade_off.png": drawings.trade_off(experiments.over_seeds(results, confidence=confidence))}
    try:
        figures["ranks.png"] = drawings.ranks(experiments.ranks(results, confidence=confidence))
    except ValueError as error:
        typer.echo(str(error))
    for name, drawing in figures.items():
        with whole(out / name) as part:
            part.write_bytes(png(drawing))
    with whole(out / "summary.md") as part:
        part.write_text(text, encoding="utf-8")
    typer.echo(text)
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
    if data is not None and Path(data).suffix.casefold() == ".json":
        return wish_of_recipe(data, root, {**given, "option": option})
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


def wish_of_recipe(file: str, root, given: dict[str, Any]) -> dict[str, Any]:
    """What a recipe says, in the form of `wish`, and under "recipe" the file itself."""
    from helpers.data import recipe

    open_ = ("data", "root")
    said = [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, []) and name not in open_]
    if said:
        raise ValueError(f"{', '.join(said)}: the recipe {file} says that already; leave it out, or give the data by name")
    found = next(iter(recipe.read(file).values()))
    load, place = found["load"], found["root"] if root is None else str(root)
    by_path = found["name"] in ("folder", "table")
    return {
        "data": place if by_path and place else found["name"],
        "root": None if by_path else place,
        "target": load["target"],
        "protected": [load["protected"]] if isinstance(load["protected"], str) else load["protected"],
        "image_size": load["image_size"],
        "seed": load["seed"],
        "option": load["options"] | ({} if found["variant"] is None else {"variant": found["variant"]}),
        "recipe": (file, root),
    }


def recalled(file: str, root, split: str, part: str | None, needed: bool):
    """The faces of a recipe for one split; None if it has none and they are not needed."""
    from helpers.data import recall, recipe

    held = recipe.read(file)
    if "" in held:  # a lone recipe is of the faces that a verb is about: not of those that it needs besides
        if part is None and needed:
            return recall(file, root)
    elif found := next((name for name in (part, split) if name in held), None):
        return recall(file, root, part=found)
    if not needed:
        typer.echo(f"{file} has no rows for {split}: training goes without", err=True)
        return None
    holds = "one set of rows" if "" in held else f"rows for {', '.join(held)}"
    raise ValueError(f"--data: {file} holds {holds}, and none for {part or split}")


def with_rows(model, fit, test) -> dict[str, dict]:
    """The recipes of all faces that a mitigated model has to do with."""
    rows = (getattr(model, "info", None) or {}).get("rows") or {}
    more = {"mitigation": fit.recipe, "test": test.recipe}
    return rows | {part: recipe for part, recipe in more.items() if recipe is not None}


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


def load(wanted: dict[str, Any], split: str, judge=None, *, part: str | None = None, needed: bool = True):
    """`helpers.load_faces` of a name or a path, for the model `judge` if there is one, or the rows of a recipe."""
    from helpers.data import SOURCES

    if "recipe" in wanted:
        return told(recalled(*wanted["recipe"], split, part, needed), judge)
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
    own = signature(SOURCES[name]).parameters
    accepted = ["variant", *(key for key in own if key not in (*given, "split", "image_size", "seed"))]
    further = {choose(key, accepted, "--option"): value for key, value in wanted["option"].items()}
    faces = helpers.load_faces(
        name, split=split, image_size=wanted["image_size"], seed=wanted["seed"], **given, **further
    )
    return told(faces, judge)


def told(faces, judge):
    """The faces, once it is said where they do not fit the model and what was left out."""
    if faces is None:
        return None
    known = tuple(getattr(judge, "classes", None) or faces.classes)
    if known != faces.classes:
        typer.echo(f"The model learned {' | '.join(known)}; here it is judged on {' | '.join(faces.classes)}", err=True)
    if faces.chosen is not None:
        came = as_markdown(faces.chosen.round(4))
        typer.echo(f"{faces.name} ({faces.split}), a variant of {len(faces)} images:\n{came}", err=True)
    if faces.skipped:
        path, reason = faces.skipped[0]
        typer.echo(f"Skipped {len(faces.skipped)} files of {faces.source['name']}, such as {path}: {reason}", err=True)
    return faces


def named(text: str, argument: str) -> tuple[str, str]:
    """ "name=text" as a pair."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"{argument}: expected NAME=VALUE, got {text!r}")
    return name, value


def pair(text: str) -> tuple[str, Any]:
    """ "name=value"; the value is read as JSON where it is JSON, else as text."""
    name, value = named(text, "--option")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def remembered(wanted: dict[str, Any]) -> dict[str, Any]:
    """What a model's description keeps of its data: not where it lay, nor how many were drawn and how biased.

    Of variants it keeps those that decide who is in which split.
    """
    option = {name: value for name, value in wanted["option"].items() if name not in ("n", "correlation", "cache")}
    if "splits" not in (option.get("variant") or ()):
        option.pop("variant", None)
    return {name: value for name, value in wanted.items() if name not in ("root", "recipe")} | {"option": option}


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
