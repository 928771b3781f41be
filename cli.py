"""The `deepfm` command: parses, calls one function of a folder, prints what came of it.

What a command needs is imported inside it: serving must start without torch, and `--help` without
waiting for anything.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from features.atomic import new_file
from features.errors import ConfigError, DeepFMError, OutputError

if TYPE_CHECKING:
    from features.signature import TrustedKeys

EXIT_ERROR = 2
DEMO_ROWS = 400_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did what it says, 2 with one sentence on stderr when not."""
    options = _parser().parse_args(arguments)
    # Before any command imports the runtime, which would report its use to its makers.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        options.run(options)
    except DeepFMError as error:
        print(f"deepfm: {error.message}", file=sys.stderr)
        return EXIT_ERROR
    except ModuleNotFoundError as error:
        print(
            f"deepfm: '{options.command}' needs the package '{error.name}', which is not "
            f"installed; install deepfm-service with the extras train and serve",
            file=sys.stderr,
        )
        return EXIT_ERROR
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; Python's own flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as stop:
        print("deepfm: interrupted", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
    return 0


class Terminated(KeyboardInterrupt):
    """SIGTERM while training: cleans up as Ctrl-C does."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deepfm", description="Train DeepFM click models and serve them."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    init = commands.add_parser("init", help="write a first spec by looking at the data")
    init.add_argument("data", help="file, folder or glob of Parquet, CSV or TSV")
    init.add_argument("--label", required=True, help="column of 0 and 1")
    init.add_argument("--group", help="column that names a row's request or user")
    init.add_argument("-o", "--output", type=Path, default=Path("spec.toml"))
    init.set_defaults(run=_init)

    train = commands.add_parser("train", help="spec and click log -> run folder")
    train.add_argument("spec", type=Path)
    train.add_argument("-o", "--output", type=Path, help="run folder; default runs/NAME-TIMESTAMP")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. train.epochs=3"
    )
    train.set_defaults(run=_train)

    export = commands.add_parser("export", help="run folder -> bundle")
    export.add_argument("folder", type=Path, metavar="RUN")
    export.add_argument(
        "-o", "--output", type=Path, help="ROOT/NAME/VERSION; default bundles/NAME/(next integer)"
    )
    export.add_argument("--precision", choices=["fp32", "int8"], help="default: the spec's")
    export.add_argument(
        "--sign", type=Path, metavar="KEY", help="private key (Ed25519, PEM) to sign it with"
    )
    export.set_defaults(run=_export)

    _add_serving(commands)

    demo = commands.add_parser("demo", help="simulate a click log, train on it, export")
    demo.add_argument("-o", "--output", type=Path, default=Path("bundles"), help="bundle root")
    demo.add_argument("--rows", type=int, default=DEMO_ROWS)
    demo.add_argument("--seed", type=int, default=0)
    demo.set_defaults(run=_demo)
    return parser


def _add_serving(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="answer /score and /rank over HTTP",
        description="What is not given here is taken from DEEPFM_* variables, else the default.",
    )
    serve.add_argument("bundle", type=Path, metavar="ROOT/NAME")
    serve.add_argument("--host", help="default: 127.0.0.1")
    serve.add_argument("--port", type=int, help="default: 8000")
    serve.add_argument("--workers", help="processes, or auto: one per usable core; default: 1")
    serve.add_argument("--provider", choices=["auto", "cpu", "cuda"], help="default: auto")
    serve.add_argument("--version", type=int, help="default: the newest")
    serve.add_argument("--canary", type=int, help="version that answers a share of the requests")
    serve.add_argument("--shadow", type=int, help="version that scores in the background")
    serve.set_defaults(run=_serve)

    score = commands.add_parser("score", help="score the rows of a file")
    score.add_argument("bundle", type=Path, metavar="ROOT/NAME/VERSION")
    score.add_argument("data", help="file, folder or glob of Parquet, CSV or TSV")
    score.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.parquet")
    _add_trusted_keys(score)
    score.set_defaults(run=_score)

    inspect = commands.add_parser("inspect", help="say what is inside a bundle")
    inspect.add_argument("bundle", type=Path, metavar="ROOT/NAME/VERSION")
    _add_trusted_keys(inspect)
    inspect.set_defaults(run=_inspect)


def _add_trusted_keys(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--trusted-keys",
        type=Path,
        metavar="FILE",
        help="public keys; refuses what none has signed",
    )


def _trusted_keys(options: argparse.Namespace) -> TrustedKeys | None:
    from features.signature import TrustedKeys

    return None if options.trusted_keys is None else TrustedKeys(options.trusted_keys)


def _init(options: argparse.Namespace) -> None:
    from features.suggest import suggest_spec

    if options.output.exists():
        raise OutputError(f"{options.output} exists already; it is never overwritten")
    text = suggest_spec(options.data, options.label, options.group)
    with new_file(options.output) as file:
        file.write_text(text, encoding="utf-8")
    print(f"{options.output}: read it, correct it, then: deepfm train {options.output}")


def _train(options: argparse.Namespace) -> None:
    from features.spec import load_spec
    from model.train import train

    spec = load_spec(options.spec, options.set)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        folder = train(spec, options.output)
    except ConfigError as error:
        raise ConfigError(f"{options.spec}: {error.message}") from error
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f"{folder}: trained; next: deepfm export {folder}")


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def _export(options: argparse.Namespace) -> None:
    from export.bundle import export_run

    target = export_run(options.folder, options.output, options.precision, options.sign)
    print(f"{target}: exported; next: deepfm serve {target.parent}")


def _serve(options: argparse.Namespace) -> None:
    from service.settings import load_settings
    from service.workers import serve

    names = ("bundle", "host", "port", "workers", "provider", "version", "canary", "shadow")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    serve(load_settings(**given))


def _score(options: argparse.Namespace) -> None:
    from service.batch import score_file

    trusted = _trusted_keys(options)
    rows = score_file(options.bundle, options.data, options.output, trusted=trusted)
    print(f"{options.output}: {rows:,} rows scored")


def _inspect(options: argparse.Namespace) -> None:
    from features.bundle import open_bundle
    from features.description import describe

    trusted = _trusted_keys(options)
    print(describe(open_bundle(options.bundle, trusted), is_checked=trusted is not None))


def _demo(options: argparse.Namespace) -> None:
    from export.demo import make_demo

    target = make_demo(options.output, options.rows, options.seed)
    print(f"{target}: exported; next: deepfm serve {target.parent}")


if __name__ == "__main__":
    sys.exit(main())
