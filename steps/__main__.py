"""`python -m steps`: the ladder, and how to climb it."""

from common.terminal import heading, make_console
from steps.ladder import ladder, runs_of_the_ladder


def main() -> None:
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
        "python -m steps.diff 4 5                 what one idea costs in code"
    )


if __name__ == "__main__":
    main()
