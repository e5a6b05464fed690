"""The command `jaxopt-tour`: race, play, tune rates, run experiments, look at the routing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

NEEDED = ("typer", "rich", "flax", "orbax")
if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    raise SystemExit(
        f"jaxopt-tour needs {', '.join(missing)}, which come with the extra 'tour': pip install 'jaxopt-tour[tour]'"
    )

import typer  # noqa: E402
from rich.console import Console  # noqa: E402

import jaxopt_tour  # noqa: E402

# JAX, Flax and Orbax are imported inside the commands, so that --help answers at once.

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False
)


class TaskChoice(StrEnum):
    """What --task takes."""

    CNN = "cnn"
    GPT = "gpt"
    ALL = "all"

    def names(self) -> tuple[str, ...]:
        """The tasks that are meant."""
        return ("cnn", "gpt") if self is TaskChoice.ALL else (self.value,)


TaskOption = Annotated[
    TaskChoice,
    typer.Option(help="cnn: a small CNN on Fashion-MNIST. gpt: a character GPT on Shakespeare. all: both."),
]
OptimizersOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,NAME,...",
        help="Only these, separated by commas. cnn: sgd, momentum, nesterov, adagrad, adadelta, rmsprop, "
        "rmsprop-centered, signsgd, signum, adam, adamw, muon. gpt: sgd-momentum, adam, adamw, muon, muon-0.7 (Muon "
        "for 0.7 of the steps). All when left out.",
    ),
]


def _names(optimizers: str | None) -> tuple[str, ...] | None:
    if optimizers is None:
        return None
    return tuple(name.strip() for name in optimizers.split(",") if name.strip())


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Show a ValueError about an argument as a usage error, without a traceback."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jaxopt-tour {jaxopt_tour.__version__}")
        raise typer.Exit()


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Optimizers from SGD to Muon, trained side by side on real data that comes with the package.

    Nothing is fetched; everything is written below one folder, **out** unless told otherwise.

    For example:

    - **jaxopt-tour race**: everything, in five to ten minutes on two cores
    - **jaxopt-tour race --quick**: the same at a few steps, in under a minute
    - **jaxopt-tour race --task gpt --optimizers adamw,muon,muon-0.7 --seeds 3**
    - **jaxopt-tour race --resume**: go on after an interruption
    - **jaxopt-tour explore**: only the page to play with, in seconds
    - **jaxopt-tour experiment race --quick**: the laboratory, at a few steps
    - **jaxopt-tour enter optax:lion**: an optimizer of anyone's in the laboratory's race
    - **jaxopt-tour routing --task gpt**: what Muon would take of the GPT, and why
    """


@app.command()
def race(
    task: TaskOption = TaskChoice.ALL,
    optimizers: OptimizersOption = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Runs of each optimizer, with seeds 0, 1, 2, ... [default: 3 on cnn, 1 on gpt; 1 with --quick]"
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps of each run, on every task. [default: 300]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for results, report and checkpoints.")] = Path("out"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps, an optimizer a family: see everything work, rank nobody.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what the folder holds, to the same numbers, bit for bit.")
    ] = False,
    rates: Annotated[
        Path | None, typer.Option(help="Learning rates, as `sweep` writes them. [default: those in the package]")
    ] = None,
) -> None:
    """Train with every optimizer in turn, each at its tuned rate; print a table, write results and a report.

    Every optimizer starts from the same parameters and sees the same batches. The rate rises for 5 % of the steps and
    falls linearly to zero. **out/results.json** is written after every run; **out/results.csv**, **out/report.html**
    and **out/tour.html**, the page to play with, at the end. **out/checkpoints** holds the latest state of every run:
    press Ctrl-C when you like and continue with --resume.

    For example:

    - **jaxopt-tour race --task cnn --optimizers adamw,muon --steps 100**
    - **jaxopt-tour race --task gpt --seeds 3 --out out/three-seeds**
    """
    from jaxopt_tour.tour import rates as tuned
    from jaxopt_tour.tour.explore.page import write_explore
    from jaxopt_tour.tour.pages import write_page
    from jaxopt_tour.tour.progress import Display
    from jaxopt_tour.tour.race import Settings
    from jaxopt_tour.tour.race import race as run_race
    from jaxopt_tour.tour.report.page import write_report
    from jaxopt_tour.tour.results import as_csv, read_results
    from jaxopt_tour.tour.summary import summary_table

    console = Console()
    rates_file = rates or tuned.EMBEDDED
    settings = Settings(task.names(), _names(optimizers), seeds, steps, quick)
    with _usage_errors():
        plan = settings.plan(rates_file)
        if resume:
            read_results(out / "results.json")
    display = Display(console, sum(run.steps for _, _, run in plan))
    try:
        with display:
            display.note(f"{len(plan)} runs; results in {out / 'results.json'}")
            results = run_race(settings, out, display, resume=resume, rates_file=rates_file)
    except KeyboardInterrupt:
        console.print(
            f"Interrupted. {out / 'results.json'} has the runs that were finished, {out / 'checkpoints'} the state of "
            "the one that was not.\nGo on with the same command and --resume.",
            highlight=False,
            markup=False,
        )
        raise typer.Exit(130) from None
    page = write_explore(out / "tour.html", report="report.html")
    table = write_page(as_csv(results), out / "results.csv")
    report = write_report(
        results, out / "report.html", tour=page.name, files={"JSON": "results.json", "CSV": table.name}
    )
    for entry in results["tasks"].values():
        console.print(summary_table(entry))
    for claim in results["claims"]:
        console.print(claim["text"], highlight=False, markup=False, soft_wrap=True)
    console.print(f"Report: {report}\nTo play with: {page}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def explore(
    out: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("out"),
) -> None:
    """Write **out/tour.html**: landscapes, rules and their terms to play with, in one file that needs no network.

    For example:

    - **jaxopt-tour explore --out /tmp/tour**
    """
    from jaxopt_tour.tour.explore.page import write_explore

    page = write_explore(out / "tour.html", report="report.html" if (out / "report.html").exists() else None)
    typer.echo(f"To play with: {page}")


@app.command()
def sweep(
    task: TaskOption = TaskChoice.ALL,
    optimizers: OptimizersOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="Tuning seeds: 1000, 1001, ... The race never uses them.")] = 2,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the race that is tuned for. [default: 300]")
    ] = None,
    output: Annotated[Path, typer.Option(help="The rates file; entries of other optimizers in it stay.")] = Path(
        "out/rates.json"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out optimizers that the file has from the same sweep.")
    ] = False,
) -> None:
    """Find the learning rate of each optimizer: the lowest final validation loss over the tuning seeds.

    A grid of rates half a decade apart, widened until the best one is inside it, then a quarter of a decade to either
    side of that one. Written after every optimizer. Takes about 20 minutes on two cores.

    For example:

    - **jaxopt-tour sweep --task gpt --optimizers muon**
    - **jaxopt-tour sweep && jaxopt-tour race --rates out/rates.json**
    """
    from jaxopt_tour.problems.tasks import make_task
    from jaxopt_tour.tour import rates
    from jaxopt_tour.tour.contenders import contenders

    console = Console()
    tuning_seeds = tuple(rates.TUNING_SEEDS[0] + i for i in range(seeds))
    with _usage_errors():
        chosen = [(name, each) for name in task.names() for each in contenders(name, _names(optimizers))]
    try:
        for name, contender in chosen:
            tuned_task = make_task(name)
            race_steps = steps or tuned_task.steps
            known = rates.read_rates(output)["rates"].get(name, {}).get(contender.name)
            if resume and rates.is_current(known, contender, race_steps, tuning_seeds):
                console.print(f"{name} {contender.name}: already done", highlight=False, soft_wrap=True)
                continue

            def show(rate: float, losses: list[float], title: str = f"{name} {contender.name}") -> None:
                shown = ", ".join(f"{loss:.4f}" for loss in losses)
                console.print(f"{title}: rate {rate:g}: validation loss {shown}", highlight=False, soft_wrap=True)

            with console.status(f"{name} {contender.name}: trying rates"):
                entry = rates.sweep(tuned_task, contender, steps=race_steps, seeds=tuning_seeds, on_rate=show)
            rates.write_rate(output, name, contender.name, entry)
            edge = "" if entry["inside_the_grid"] else " (at the edge of the grid: not settled)"
            console.print(
                f"{name} {contender.name}: best rate {entry['learning_rate']:g}{edge}", highlight=False, soft_wrap=True
            )
    except KeyboardInterrupt:
        console.print(f"Interrupted. {output} has the optimizers that were finished; go on with --resume.")
        raise typer.Exit(130) from None
    console.print(f"Rates: {output}", highlight=False, soft_wrap=True)


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="Which; or: all.", metavar="NAME")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Few, small runs, in under a minute: see everything work, show nothing.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Each experiment has a folder in this one. [default: out/experiments, out/quick-experiments]"
        ),
    ] = None,
) -> None:
    """Run an experiment of the laboratory, and write its results, its picture and its answer.

    What was computed before with the same **--out** is not computed again: after an interruption the same command
    goes on. The results of the full settings are part of the project, below **experiments/results**, and told in
    **docs/laboratory.md**.

    - **adam-initialisation**: bias correction and initial moments
    - **adam-variants**: LaProp, eps, schedules of betas, handing over to SGD
    - **smoothing**: angles between gradient, momentum and update
    - **matrix-problems**: where Muon wins and where it does not
    - **newton-schulz**: steps, coefficients and dtypes against the exact polar factor
    - **spectra**: singular values through training
    - **race**: steps, seconds and memory to a target
    - **variance-and-shampoo**: v as a variance, Muon as Shampoo without memory
    - **after-muon**: what the rules after Muon add, AdamW with rates by role

    For example: **jaxopt-tour experiment race --quick**
    """
    from jaxopt_tour.tour.laboratory.experiment import MODULES, find, perform

    console = Console()

    def note(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    folder = out or Path("out/quick-experiments" if quick else "out/experiments")
    with _usage_errors():
        chosen = [find(each) for each in (MODULES if name == "all" else (name,))]
    try:
        for each in chosen:
            with console.status(f"{each.title}: computing"), _usage_errors():
                summary = perform(each, folder / each.name, quick=quick, listener=note)
            note(f"{each.title}: {summary}")
    except KeyboardInterrupt:
        note(f"Interrupted. What was finished is in {folder}; the same command goes on from there.")
        raise typer.Exit(130) from None


@app.command()
def enter(
    entry: Annotated[str, typer.Argument(help="MODULE:FUNCTION or FILE.py:FUNCTION.", metavar="ENTRY")],
    against: Annotated[str, typer.Option(help="Of sgd-momentum, adam, adamw, muon.")] = "adamw,muon",
    workloads: Annotated[str, typer.Option(help="Of mlp, cnn, vit, gpt, the cheapest first.")] = "mlp,cnn,vit,gpt",
    tune: Annotated[
        list[str] | None, typer.Option(help="name=low:high, once a number that is tuned beside the rate.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Where the search for the rate begins.")] = 3e-3,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="After these the search stops, and the card is written.")
    ] = 20,
    out: Annotated[Path, typer.Option(help="A folder of the entry's name in it has the results.")] = Path("out/enter"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps on a tiny problem: see everything work, show nothing.")
    ] = False,
) -> None:
    """Enter an optimizer of your own in the race: the same tuning, the same seeds, and a card of what is shown.

    An entry is a function **(learning_rate, ...) -> optax.GradientTransformation**. Its rate is tuned, and what is
    asked for by **--tune** or annotated **Annotated[float, (low, high)]**; else its momentum. The rivals' numbers come
    with the package. What was computed is not computed again: the same command goes on, with more minutes if you like.

    For example:

    - **jaxopt-tour enter optax:lion --tune b1=0.5:0.99**
    - **jaxopt-tour enter mine.py:make_optimizer --workloads mlp,gpt --minutes 10**
    """
    from jaxopt_tour.tour.enter.card import verdicts, write_card
    from jaxopt_tour.tour.enter.contest import choose_heats, contest
    from jaxopt_tour.tour.enter.entry import find_entry

    console = Console()

    def note(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    with _usage_errors():
        entered = find_entry(entry, tune or (), rate)
        chosen = choose_heats(_names(workloads) or (), quick)
        folder = out / entered.name
        try:
            with console.status(f"{entered.name}: at most {minutes:g} minutes"):
                results = contest(
                    entered, chosen, _names(against) or (), folder / "results.json",
                    minutes=minutes, quick=quick, listener=note,
                )  # fmt: skip
        except KeyboardInterrupt:
            note(f"Interrupted. What was finished is in {folder}; the same command goes on from there.")
            raise typer.Exit(130) from None
    for sentence in (each for result in results for each in verdicts(entered, result)):
        note(sentence)
    note(f"Card: {write_card(entered, results, folder, quick=quick)}")


@app.command()
def routing(task: TaskOption = TaskChoice.ALL) -> None:
    """Show what each parameter is (a matrix goes to Muon, the rest to AdamW), seen as which matrix, and why."""
    from jaxopt_tour.problems.tasks import make_task
    from jaxopt_tour.tour.race import routing_text

    for name in task.names():
        described = make_task(name)
        typer.echo(f"{described.title}\n{routing_text(described)}\n")


@app.command()
def metrics(
    file: Annotated[Path, typer.Argument(help="JSON lines: each a dictionary that jt.metrics returned.", exists=True)],
    out: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("out"),
) -> None:
    """Draw the metrics of a training run: one HTML page that needs no network.

    The file has one line **json.dumps(jt.metrics(state))** a measurement. The page says what stands out in the last.

    For example:

    - **jaxopt-tour metrics metrics.jsonl**
    """
    from jaxopt_tour.tour.metrics_page import read_metrics, write_metrics

    with _usage_errors():
        rows = read_metrics(file)
    typer.echo(f"Metrics: {write_metrics(rows, out / 'metrics.html', f'Metrics of {file.name}')}")


def main() -> None:
    """Run the command."""
    app(prog_name="jaxopt-tour")


if __name__ == "__main__":
    main()
