"""The `softcask` command: what there is to call, and how every call ends.

Commands import what they need when they run, so that `softcask --help` is quick and the student's
installation needs no Ray.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import softcask
from softcask.jobs import (
    cluster_jobs,
    combine,
    console,
    diff,
    drop,
    export,
    gc,
    import_,
    inspect,
    ledger,
    migrate,
    plan,
    precompute,
    prepare,
    reencode,
    repair,
    status,
    submit,
    sweep,
    train,
    verify,
)
from softcask.pipeline import logs
from softcask.pipeline.config.credentials import redacted
from softcask.storage_schemas.errors import SoftcaskError

_EXTRAS = {"ray": "engine", "torch": "student", "safetensors": "student", "PIL": "images"}
_INTERRUPTED = 130


class _Commands(TyperGroup):
    """Ends every command in one message and an exit code: 2 what softcask refuses, 130 Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            console.complain("interrupted; what is committed is safe; run the same command to go on")
            raise typer.Exit(_INTERRUPTED) from error
        except Exception as error:
            message = _explained(error)
            if message is None or os.environ.get("SOFTCASK_TRACEBACK"):
                raise
            _end_in(message)
            raise typer.Exit(2) from error


app = typer.Typer(
    name="softcask",
    cls=_Commands,
    help="Run expensive teachers once, keep their logits, train any number of students from them.",
    epilog="Start with:\n\nsoftcask plan run.toml\n\nsoftcask precompute run.toml\n\nsoftcask inspect STORE"
    "\n\nsoftcask train student.toml\n\nSet SOFTCASK_TRACEBACK=1 to see where an error comes from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=plan.EXAMPLES)(plan.plan)
app.command(epilog=precompute.EXAMPLES)(precompute.precompute)
app.command(epilog=prepare.EXAMPLES)(prepare.prepare)
app.command(epilog=status.EXAMPLES)(status.status)
app.command(epilog=verify.EXAMPLES)(verify.verify)
app.command(epilog=inspect.EXAMPLES)(inspect.inspect)
app.command(epilog=diff.EXAMPLES)(diff.diff)
app.command(epilog=repair.EXAMPLES)(repair.repair)
app.command(epilog=drop.EXAMPLES)(drop.drop)
app.command(epilog=gc.EXAMPLES)(gc.gc)
app.command(epilog=migrate.EXAMPLES)(migrate.migrate)
app.command(epilog=export.EXAMPLES)(export.export)
app.command("import", epilog=import_.EXAMPLES)(import_.import_)
app.command(epilog=reencode.EXAMPLES)(reencode.reencode)
app.command(epilog=combine.EXAMPLES)(combine.combine)
app.command(epilog=train.EXAMPLES)(train.train)
app.command(epilog=sweep.EXAMPLES)(sweep.sweep)
app.command(epilog=ledger.EXAMPLES)(ledger.ledger)
app.command(epilog=submit.EXAMPLES)(submit.submit)
app.add_typer(cluster_jobs.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.say(f"softcask {softcask.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log a JSON object a line; also SOFTCASK_LOG=json.")
    ] = False,
) -> None:
    if log_json:
        os.environ[logs.FORMAT] = "json"  # processes that are started from here log so, too
    logs.set_up()


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    app(prog_name="softcask")


def _end_in(message: str) -> None:
    """Say why the command ends; a log for machines holds it, too."""
    if logs.is_json():
        logging.getLogger("softcask").error("%s", message)
    else:
        console.complain(redacted(message))


def _explained(error: Exception) -> str | None:
    """What to tell of an error that is no fault of softcask's; None where a traceback says more."""
    if isinstance(error, SoftcaskError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in _EXTRAS:
            return f"this needs {package}, which is not installed: pip install 'softcask[{_EXTRAS[package]}]'"
    if isinstance(error, OSError) and error.errno not in (None, errno.EPIPE):
        return f"the system refused: {error}"
    return None


if __name__ == "__main__":
    main()
