"""What a character model will meet in a text, counted in one pass and bounded memory."""

from collections import Counter
from dataclasses import dataclass

from book_data import Book
from book_data.cleaning import CHUNK
from book_data.progress import watched


@dataclass(frozen=True)
class Profile:
    """Counts over a whole text. `head` is its beginning; train + validation = its characters."""

    frequencies: Counter[str]
    lines: int
    words: int
    longest_line: int
    head: str

    @property
    def characters(self) -> int:
        return self.frequencies.total()

    @property
    def alphabet(self) -> str:
        return "".join(sorted(self.frequencies))

    @property
    def train(self) -> int:
        """The first 90 %, in characters, rounded down; the rest is for validation."""
        return self.characters * 9 // 10

    @property
    def validation(self) -> int:
        return self.characters - self.train


def profile(book: Book) -> Profile:
    """Count the characters, lines and words of a book's cleaned text."""
    frequencies: Counter[str] = Counter()
    words = longest = width = 0
    head, in_word = "", False
    with book.path.open(encoding="utf-8", newline="") as file:
        stream = iter(lambda: file.read(CHUNK), "")
        for text in watched(stream, f"counting {book.path.name}", book.characters):
            head = head or text[:4000]
            frequencies.update(text)
            words += len(text.split()) - (in_word and not text[0].isspace())
            in_word = not text[-1].isspace()
            first, *rest = text.split("\n")
            width += len(first)
            longest = max(longest, width)
            if rest:
                longest, width = max(longest, *map(len, rest)), len(rest[-1])
    return Profile(frequencies, frequencies["\n"] + (width > 0), words, longest, head)
