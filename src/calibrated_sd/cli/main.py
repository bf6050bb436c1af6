"""`csd`: reproduce, train, evaluate, count markers, read recipes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from calibrated_sd import __version__
from calibrated_sd.cli.bench import bench_command
from calibrated_sd.cli.compare import compare_command
from calibrated_sd.cli.console import error_console
from calibrated_sd.cli.data import data_app
from calibrated_sd.cli.env import env_command
from calibrated_sd.cli.evaluate import evaluate_command
from calibrated_sd.cli.gguf import convert_gguf_command
from calibrated_sd.cli.ladder import ladder_command
from calibrated_sd.cli.markers import markers_command
from calibrated_sd.cli.monitor import monitor_command
from calibrated_sd.cli.off_policy import off_policy_command
from calibrated_sd.cli.organism import organism_app
from calibrated_sd.cli.probe import probe_command
from calibrated_sd.cli.recipes import cat_command, cp_command, ls_command, validate_command
from calibrated_sd.cli.report import report_command
from calibrated_sd.cli.reproduce import reproduce_command
from calibrated_sd.cli.sweep import sweep_command
from calibrated_sd.cli.termination import TERMINATED, Terminated, exit_on_sigterm
from calibrated_sd.cli.train import train_command
from calibrated_sd.errors import CalibratedSDError
from calibrated_sd.records.disk_faults import describe_fault

app = typer.Typer(
    name="csd",
    help="Self-distillation for TRL that does not make a reasoning model forget how to doubt.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RUN, LOOK, RECIPES = "Run", "Look", "Recipes"
app.command("reproduce", rich_help_panel=RUN)(reproduce_command)
app.command(
    "train",
    rich_help_panel=RUN,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(train_command)
app.command("sweep", rich_help_panel=RUN)(sweep_command)
app.command("evaluate", rich_help_panel=RUN)(evaluate_command)
app.command("probe", rich_help_panel=RUN)(probe_command)
app.command("ladder", rich_help_panel=RUN)(ladder_command)
app.command("off-policy", rich_help_panel=RUN)(off_policy_command)
app.add_typer(data_app, name="data", rich_help_panel=RUN)
app.add_typer(organism_app, name="organism", rich_help_panel=RUN)
app.command("convert-gguf", rich_help_panel=RUN)(convert_gguf_command)
app.command("compare", rich_help_panel=LOOK)(compare_command)
app.command("markers", rich_help_panel=LOOK)(markers_command)
app.command("monitor", rich_help_panel=LOOK)(monitor_command)
app.command("report", rich_help_panel=LOOK)(report_command)
app.command("bench", rich_help_panel=LOOK)(bench_command)
app.command("env", rich_help_panel=LOOK)(env_command)
app.command("ls", rich_help_panel=RECIPES)(ls_command)
app.command("cat", rich_help_panel=RECIPES)(cat_command)
app.command("cp", rich_help_panel=RECIPES)(cp_command)
app.command("validate", rich_help_panel=RECIPES)(validate_command)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"calibrated-sd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Self-distillation for TRL that does not make a reasoning model forget how to doubt."""


def main() -> None:
    """Entry point: errors that a user can cause end in one paragraph and exit code 2, without a traceback.

    Full disks and missing permissions are such errors, too, wherever they are met. Exit code 130 after Ctrl-C, 143 after
    SIGTERM.
    """
    exit_on_sigterm()
    try:
        app()
    except Terminated:
        error_console.print("Terminated. What is finished is kept; add --if-exists resume to continue.")
        sys.exit(TERMINATED)
    except CalibratedSDError as error:
        error_console.print(f"Error: {error}", markup=False, highlight=False)
        sys.exit(2)
    except Exception as error:
        paragraph = describe_fault(error)
        if paragraph is None:
            raise
        error_console.print(f"Error: {paragraph}", markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        error_console.print("Interrupted. What is finished is kept; add --if-exists resume to continue.")
        sys.exit(130)


if __name__ == "__main__":
    main()
