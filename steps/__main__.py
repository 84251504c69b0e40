"""`python -m steps`: the ladder, and how to climb it."""

import typer

from common.terminal import heading, make_console
from steps.ladder import ladder, runs_of_the_ladder

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    """The ladder of steps, and how to climb it."""
    if context.invoked_subcommand:
        return
    console = make_console()
    heading(console, "GPT, step by step")
    console.print(ladder(console.width))
    runs = runs_of_the_ladder()
    if runs:
        run = runs[max(runs)]
        console.print(
            f"\nvalidation loss in nats per character, preset laptop, seed {run['seed']}, "
            f"{run['machine']['cores']} cores of {run['machine']['cpu']}",
            style="dim",
        )
    console.print(
        "\npython -m steps.05_multihead            walk through a step\n"
        "python -m steps.05_multihead --no-train the same, without training\n"
        "python -m steps.07_full_gpt --check      what to check before training\n"
        "python -m steps.diff 4 5                 what one idea costs in code\n"
        "python -m steps present                  the talk, full-screen: one key a page"
    )


@app.command()
def present() -> None:
    """Show the deck in this terminal, full-screen; ? lists the keys."""
    from steps.present import present

    raise typer.Exit(present())


if __name__ == "__main__":
    app(prog_name="python -m steps")
