"""Any OpenAI-compatible endpoint as a teacher, through the official client.

Money is reserved before a request is sent and settled when the answer is there, in a ledger on disk. A request
whose fate is unknown (a timeout, a cut connection, this process killed) stays reserved at its highest possible
cost, so the budget is kept even across crashes. Each prompt carries the same Idempotency-Key whenever it is sent,
so an endpoint that honours it never bills it twice. The key is read from OPENAI_API_KEY and written nowhere.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from textbooks.records import Journal
from textbooks.teachers import FULL, Answer, Prompt, Record, TeacherStopped
from textbooks.topics import Draw

KEY_VARIABLE = "OPENAI_API_KEY"
UNBILLED = {400, 401, 403, 404, 413, 422, 429}  # the endpoint said no before it worked
FATAL = {400, 401, 403, 404, 413, 422}  # asking again cannot help


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, how, and what it may cost. Prices in US dollars a million tokens; budgets None: no limit."""

    model: str
    base_url: str | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    budget_usd: float | None = None
    budget_tokens: int | None = None
    concurrency: int = 8
    max_tokens: int = 1500
    temperature: float = 1.0
    timeout: float = 120.0
    attempts: int = 6
    backoff: float = 1.0  # seconds before the second attempt; doubled each time, at most 60

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6


class BudgetSpent(Exception):
    pass


class Ledger:
    """Reserved and spent, on disk before it counts. Thread-safe."""

    def __init__(self, path: Path, endpoint: Endpoint):
        self.endpoint, self.lock, self.journal = endpoint, threading.Lock(), Journal(path)
        self.open: dict[str, dict] = {}
        self.usd, self.tokens, self.lost, self.requests = 0.0, 0, 0, 0
        for row in list(self.journal):
            self._apply(row)
        self.lost += len(self.open)  # of an earlier process: nobody will settle them any more
        self.open = {f"lost {number}": row for number, row in enumerate(self.open.values())}

    def _apply(self, row: dict) -> None:
        if row["event"] == "reserve":
            self.open[row["id"]] = row
            self.requests += 1
            return
        reserved = self.open.pop(row["id"])
        if row["event"] == "lost":
            self.lost += 1
            row = reserved
        self.usd += row["usd"]
        self.tokens += row["tokens"]

    @property
    def committed(self) -> tuple[float, int]:
        """Dollars and tokens that are spent or may yet be."""
        return (
            self.usd + sum(row["usd"] for row in self.open.values()),
            self.tokens + sum(row["tokens"] for row in self.open.values()),
        )

    def reserve(self, request: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Raises BudgetSpent if the request, at its most expensive, would not fit."""
        tokens = prompt_tokens + completion_tokens
        row = {"event": "reserve", "id": request, "tokens": tokens}
        row["usd"] = self.endpoint.cost(prompt_tokens, completion_tokens)
        with self.lock:
            usd, used = self.committed
            limit_usd, limit_tokens = self.endpoint.budget_usd, self.endpoint.budget_tokens
            if limit_usd is not None and usd + row["usd"] > limit_usd:
                raise BudgetSpent
            if limit_tokens is not None and used + tokens > limit_tokens:
                raise BudgetSpent
            self.journal.append([row])
            self._apply(row)

    def settle(self, request: str, event: str, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """`event`: "paid" with the tokens billed, "free" if nothing was billed, "lost" if nobody knows."""
        row = {"event": event, "id": request, "tokens": prompt_tokens + completion_tokens}
        row["usd"] = self.endpoint.cost(prompt_tokens, completion_tokens)
        with self.lock:
            self.journal.append([row])
            self._apply(row)


class OpenAITeacher:
    templates = FULL

    def __init__(self, endpoint: Endpoint, ledger: Path, sleep: Callable[[float], None] = time.sleep):
        """Raises TeacherStopped, without a request, if there is no key or no such address."""
        import openai

        key = os.environ.get(KEY_VARIABLE, "")
        if not key:
            raise TeacherStopped(f"set {KEY_VARIABLE} to the endpoint's key (any word if it needs none)")
        if any(c.isspace() or not c.isascii() for c in key):
            raise TeacherStopped(f"{KEY_VARIABLE} holds white space or letters outside ASCII: set it again")
        self.endpoint, self.ledger, self.sleep = endpoint, Ledger(ledger, endpoint), sleep
        self.name = f"openai:{endpoint.model}"
        self._secret = key
        self._client = openai.OpenAI(
            api_key=key, base_url=endpoint.base_url, timeout=endpoint.timeout, max_retries=0
        )
        self._stop = threading.Event()
        self._why = ""
        self.failed: dict[str, int] = {}  # what went wrong, how often; retried requests included

    def accepts(self, draw: Draw) -> bool:
        return True

    def report(self) -> dict[str, float | int | dict]:
        usd, tokens = self.ledger.committed
        return {
            "requests": self.ledger.requests, "usd": round(usd, 6), "tokens": tokens,
            "requests_of_unknown_fate": self.ledger.lost, "faults": dict(sorted(self.failed.items())),
        }  # fmt: skip

    def answer(self, prompts: Sequence[Prompt], answered: Container[str], record: Record) -> None:
        """Ask `concurrency` prompts at a time. Raises TeacherStopped when the key is refused or the budget spent;
        Ctrl-C waits for the answers under way, which are paid for, and keeps them."""
        waiting = iter([prompt for prompt in prompts if prompt.key not in answered])
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
            running = set()
            try:
                while not self._stop.is_set():
                    while len(running) < self.endpoint.concurrency and (prompt := next(waiting, None)):
                        running.add(pool.submit(self._one, prompt, record))
                    if not running:
                        break
                    done, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            finally:
                self._stop.set()  # no new attempts; those in flight end by themselves
        for future in running:
            future.result()
        if self._why:
            raise TeacherStopped(self._why)
        self._stop.clear()

    def _one(self, prompt: Prompt, record: Record) -> None:
        for attempt in range(self.endpoint.attempts):
            if self._stop.is_set():
                return
            request = f"{prompt.key[:16]}.{self.ledger.requests}.{threading.get_ident()}.{attempt}"
            try:
                # a token is at least one byte, so the bytes of the prompt bound its tokens; 64 for the frame
                self.ledger.reserve(request, len(prompt.text.encode()) + 64, self.endpoint.max_tokens)
            except BudgetSpent:
                return self._halt("the budget is spent: raise --budget-usd or --budget-tokens and run again")
            answer, problem, pause = self._ask(prompt, request)
            if answer is not None:
                record([(prompt, answer)])
                return
            self.failed[problem] = self.failed.get(problem, 0) + 1
            if self._stop.is_set() or attempt + 1 == self.endpoint.attempts:
                return
            jitter = 0.5 + random.Random(request).random()
            self.sleep(max(pause, min(60.0, self.endpoint.backoff * 2**attempt) * jitter))

    def _halt(self, why: str) -> None:
        self._why = self._why or why
        self._stop.set()

    def _ask(self, prompt: Prompt, request: str) -> tuple[Answer | None, str, float]:
        """(the answer or None, what went wrong, seconds the endpoint asks to wait)."""
        import openai

        try:
            reply = self._client.chat.completions.create(
                model=self.endpoint.model,
                messages=[{"role": "user", "content": prompt.text}],
                max_tokens=self.endpoint.max_tokens,
                temperature=self.endpoint.temperature,
                seed=prompt.seed + prompt.index,
                extra_headers={"Idempotency-Key": prompt.key},
            )
            text = reply.choices[0].message.content
            usage = reply.usage
            tokens = (usage.prompt_tokens, usage.completion_tokens)
            if not isinstance(text, str) or not text.strip() or not all(type(n) is int for n in tokens):
                raise ValueError
        except openai.APIStatusError as error:
            status = error.status_code
            self.ledger.settle(request, "free" if status in UNBILLED else "lost")
            if status in FATAL or (status == 429 and "insufficient_quota" in str(error.code)):
                self._halt(_advice(status))
            return None, f"HTTP {status}", _retry_after(error.response.headers)
        except openai.APITimeoutError:
            self.ledger.settle(request, "lost")
            return None, "timeout", 0.0
        except (openai.APIConnectionError, OSError):
            self.ledger.settle(request, "lost")
            return None, "connection", 0.0
        except Exception:  # not the JSON of an answer, in one of many ways; the text is not shown, it may hold a key
            self.ledger.settle(request, "lost")
            return None, "malformed answer", 0.0
        self.ledger.settle(request, "paid", *tokens)
        return Answer(text.replace(self._secret, "[key]"), *tokens), "", 0.0


def _advice(status: int) -> str:
    if status in (401, 403):
        return f"the endpoint refused the key in {KEY_VARIABLE} (HTTP {status}): set a valid one and run again"
    if status == 404:
        return "the endpoint does not know the address or the model (HTTP 404): check --base-url and --model"
    if status == 429:
        return "the endpoint says that its quota is used up (HTTP 429): top it up and run again"
    return f"the endpoint rejects the request itself (HTTP {status}): check --model and the prompt files"


def _retry_after(headers) -> float:
    """Seconds from a Retry-After header, which holds seconds or a date; at most two minutes."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value) if value else 0.0
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            seconds = 0.0
    return min(120.0, max(0.0, seconds))
