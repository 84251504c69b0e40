"""Step 09 · Pretraining

Six copies of the GPT of step 07, equal in size, schedule, batches and number of tokens, read six different things: raw
code, the part of it that a filter finds worth reading, as much of it drawn at random, and that part with synthetic
textbooks. Two are rivals: raw code with three times the tokens, which asks whether quantity would do as well, and the
same textbooks with their code permuted among pages of one signature, which keeps words, form and domain and takes
away only that the code does what the text says. Nobody has seen the examination.

New: what differs between the models is the data alone, and every comparison has its control.

Shapes: raw functions → filtered → + pages of textbook → one stream of tokens → pieces (B, T)
"""

from pathlib import Path

from textbooks.study import Arm

NAME = Path(__file__).stem
ARMS = (
    Arm("A", "raw code", "raw"),
    Arm("A3", "raw code, three times the tokens", "raw", longer=3),
    Arm("B", "filtered code", "filtered"),
    Arm("Br", "random code, as little as B", "random"),
    Arm("C", "filtered code and textbooks", "textbook"),
    Arm("C-", "filtered code and permuted textbooks", "textbook permuted"),
)

if __name__ == "__main__":
    from steps.case_study import main

    main(9)
