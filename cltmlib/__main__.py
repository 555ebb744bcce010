"""The console command ``cltm``; also ``python -m cltmlib``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cltmlib import __version__
from cltmlib.errors import InputError


class Command(NamedTuple):
    """A subcommand: one line of help, its arguments, what it does (the exit code, or None for 0)."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    act: Callable[[argparse.Namespace], int | None]


def _selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--notebook", action="append", default=[], metavar="NN", help="only this one, such as 02")


def _profile_and_parameters(default: str) -> Callable[[argparse.ArgumentParser], None]:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--profile", default=default, metavar="NAME", help=f"smoke, mini or paper (default: {default})"
        )
        _selection(parser)
        parser.add_argument(
            "-p",
            "--parameter",
            nargs=2,
            action="append",
            default=[],
            metavar=("KEY", "VALUE"),
            help="another value for one parameter; can be repeated",
        )

    return add


def _run(arguments: argparse.Namespace) -> int | None:
    from cltmlib import study

    try:
        study.run(arguments.profile, arguments.notebook, dict(arguments.parameter))
    except study.NotebookFailed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on: finished trainings are kept.", file=sys.stderr)
        return 130


def _plan(arguments: argparse.Namespace) -> None:
    from cltmlib import study

    print(study.plan(arguments.profile, arguments.notebook, dict(arguments.parameter)))


def _list(arguments: argparse.Namespace) -> None:
    from cltmlib import study

    print(study.describe(arguments.notebook) if arguments.notebook else study.overview())


def _pretraining(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", choices=("mini-hubert", "mini-whisper", "mini-qwen"), help="which stand-in")
    parser.add_argument("--folder", metavar="DIR", help="where the model goes (default: cltmlib/models/MODEL)")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="mini-hubert: only measure what it buys against random weights",
    )


def _pretrain(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from cltmlib import checkpoints, study
    from cltmlib.pretrain import hubert, qwen, whisper

    folder = Path(arguments.folder) if arguments.folder else checkpoints.STAND_INS / arguments.model
    if arguments.model != "mini-hubert" and arguments.compare:
        raise InputError("--compare is for mini-hubert: notebooks 04 and 05 tell what the others can do.")
    if arguments.model == "mini-qwen":
        print("share of exact answers on unseen sentences:", qwen.make_stand_in(folder, qwen.Recipe()))
    elif arguments.model == "mini-whisper":
        print("word error rate:", whisper.make_stand_in(folder, whisper.Recipe()))
    elif arguments.compare:
        names = (str(folder), f"{checkpoints.RANDOM_PREFIX}{folder}")
        params = study.configure("mini", "02_gr_cltm").as_dict()
        table = hubert.what_it_buys(params, names, hubert.COMPARED_N_SAMPLES)
        table["encoder"] = table["encoder"].map(dict(zip(names, ("pretrained", "random"), strict=True)))
        table.to_csv(folder / "gain.csv", index=False, float_format="%.4f")
        print(table.to_string(index=False))
    else:
        print(hubert.make_stand_in(folder, hubert.Recipe())[-1])


COMMANDS: dict[str, Command] = {
    "run": Command("execute notebooks, resuming what is unfinished", _profile_and_parameters("mini"), _run),
    "plan": Command("tell trainings, time and disk before anything starts", _profile_and_parameters("paper"), _plan),
    "list": Command("tell what is finished; with --notebook, its parameters", _selection, _list),
    "pretrain": Command("make a stand-in model anew, or measure what it buys", _pretraining, _pretrain),
}

EXAMPLES = """\
examples:
  cltm run                              all notebooks, profile mini
  cltm run --notebook 02 -p n_samples 30
  cltm run --notebook 02 --profile paper -p corpus_dir DIR
  cltm run --notebook 02 -p corpus common_voice -p corpus_dir DIR \\
           -p languages "[no, de, ca]"
  cltm list --notebook 02               the parameters of a notebook
"""


def main(words: Sequence[str] | None = None) -> int:
    """Read the command line and act; wrong input gives one sentence and exit code 2, a failed notebook 1."""
    parser = argparse.ArgumentParser(
        prog="cltm",
        description="How speech models carry over between languages: run the notebooks of the study.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cltm {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(subparsers.add_parser(name, help=command.help, description=command.help))
    arguments = parser.parse_args(words)
    try:
        return COMMANDS[arguments.command].act(arguments) or 0
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        return 0


if __name__ == "__main__":
    sys.exit(main())
