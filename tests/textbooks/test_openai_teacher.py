"""The endpoint teacher against a server that shows every fault of TESTING.md: nothing lost, nothing paid twice."""

import pytest

from tests.textbooks.fault_server import FAULTS, FaultServer, good_answer, serving
from textbooks.records import read_jsonl
from textbooks.teachers import Prompt, TeacherStopped
from textbooks.teachers import openai as openai_teacher
from textbooks.teachers.openai import BudgetSpent, Endpoint, Ledger, OpenAITeacher
from textbooks.topics import Draw

KEY = "sk-loopback-123456"


def prompts(count: int) -> list[Prompt]:
    return [Prompt(i, "exercise", Draw("A/B/c", "D/E/f", "a baker"), 0, f"prompt {i}") for i in range(count)]


def teacher_for(url, folder, monkeypatch, sleep=lambda seconds: None, **settings) -> OpenAITeacher:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings = {"model": "m", "timeout": 0.5, "max_tokens": 100, "price_in": 1.0, "price_out": 2.0, **settings}
    return OpenAITeacher(Endpoint(base_url=url, **settings), folder / "ledger.jsonl", sleep)


def ask(teacher, asked, answered=frozenset()):
    got = {}
    teacher.answer(asked, answered, lambda pairs: got.update({p.index: a for p, a in pairs}))
    return got


@pytest.mark.parametrize("fault", FAULTS)
def test_every_prompt_is_answered_after_this_fault(fault, tmp_path, monkeypatch):
    server = FaultServer(lambda n: [fault])
    with serving(server) as url:
        teacher = teacher_for(url, tmp_path, monkeypatch)
        got = ask(teacher, prompts(3))
    assert sorted(got) == [0, 1, 2]
    assert {a.text for a in got.values()} == {good_answer(n) for n in range(3)}
    assert sum(teacher.failed.values()) == 3 and set(server.seen.values()) == {2}
    assert set(server.billed.values()) == {1}


def test_all_faults_in_a_row_end_in_an_answer(tmp_path, monkeypatch):
    with serving(FaultServer(lambda n: FAULTS)) as url:
        teacher = teacher_for(url, tmp_path, monkeypatch, attempts=len(FAULTS) + 1)
        assert len(ask(teacher, prompts(2))) == 2
    assert sum(teacher.failed.values()) == 2 * len(FAULTS)


def test_a_prompt_that_keeps_failing_is_not_recorded_and_is_asked_again(tmp_path, monkeypatch):
    server = FaultServer(lambda n: ["500"] * 3 if n == 0 else [])
    with serving(server) as url:
        teacher = teacher_for(url, tmp_path, monkeypatch, attempts=3, concurrency=1)
        asked = prompts(2)
        got = ask(teacher, asked)
        assert sorted(got) == [1]
        got |= ask(teacher, asked, {asked[1].key})
    assert sorted(got) == [0, 1] and server.seen == {0: 4, 1: 1}


@pytest.mark.parametrize("status", [401, 403, 404, 400])
def test_a_refused_request_is_never_retried(status, tmp_path, monkeypatch):
    server = FaultServer(status=status)
    with serving(server) as url:
        teacher = teacher_for(url, tmp_path, monkeypatch, concurrency=1)
        with pytest.raises(TeacherStopped) as stopped:
            ask(teacher, prompts(5))
    assert sum(server.seen.values()) == 1
    assert "\n" not in str(stopped.value) and f"HTTP {status}" in str(stopped.value)
    assert teacher.ledger.committed == (0.0, 0)


def test_retry_after_is_waited_for_and_backoff_grows_without_it(tmp_path, monkeypatch):
    slept = []
    with serving(FaultServer(lambda n: ["429 retry-after"])) as url:
        ask(teacher_for(url, tmp_path, monkeypatch, slept.append, backoff=0.001), prompts(1))
    assert slept == [0.4]
    slept.clear()
    with serving(FaultServer(lambda n: ["429"] * 4)) as url:
        ask(teacher_for(url, tmp_path, monkeypatch, slept.append, backoff=1.0), prompts(1))
    assert len(slept) == 4 and all(0.5 * 2**n <= pause <= 1.5 * 2**n for n, pause in enumerate(slept))


def test_no_more_requests_at_once_than_allowed(tmp_path, monkeypatch):
    server = FaultServer(delay=0.05)
    with serving(server) as url:
        assert len(ask(teacher_for(url, tmp_path, monkeypatch, concurrency=3), prompts(12))) == 12
    assert server.most_at_once == 3


def test_the_budget_is_never_exceeded_and_what_was_paid_is_kept(tmp_path, monkeypatch):
    server = FaultServer()
    worst = Endpoint("m", price_in=1.0, price_out=2.0).cost(len("prompt 0") + 64, 100)
    with serving(server) as url:
        teacher = teacher_for(url, tmp_path, monkeypatch, budget_usd=worst * 2.5, concurrency=4)
        got = {}
        with pytest.raises(TeacherStopped, match="budget"):
            teacher.answer(prompts(50), frozenset(), lambda pairs: got.update({p.index: a for p, a in pairs}))
    paid = sum(server.billed.values()) * Endpoint("m", price_in=1.0, price_out=2.0).cost(100, 50)
    assert 1 <= len(got) == sum(server.billed.values()) < 50
    assert teacher.ledger.committed[0] == pytest.approx(paid) and paid <= worst * 2.5


def test_a_token_budget_stops_the_run(tmp_path, monkeypatch):
    with serving(FaultServer()) as url:
        teacher = teacher_for(url, tmp_path, monkeypatch, budget_tokens=500, concurrency=1)
        with pytest.raises(TeacherStopped, match="budget"):
            ask(teacher, prompts(50))
    assert teacher.ledger.committed[1] <= 500


def test_a_killed_request_still_counts_against_the_budget(tmp_path):
    endpoint = Endpoint("m", price_in=1.0, price_out=1.0, budget_usd=0.0003)
    Ledger(tmp_path / "l.jsonl", endpoint).reserve("a", 100, 100)  # and then the process dies
    again = Ledger(tmp_path / "l.jsonl", endpoint)
    assert again.committed == (pytest.approx(0.0002), 200) and again.lost == 1
    with pytest.raises(BudgetSpent):
        again.reserve("b", 100, 100)


def test_the_key_appears_in_no_file_and_no_message(tmp_path, monkeypatch, capsys):
    for status, script in ((401, ()), (0, ("500", "429"))):
        with serving(FaultServer(lambda n, script=script: script, status=status)) as url:
            teacher = teacher_for(url, tmp_path, monkeypatch)
            try:
                ask(teacher, prompts(2))
            except TeacherStopped as stopped:
                assert KEY not in str(stopped)
            assert KEY not in repr(teacher.report()) + teacher.name
    assert all(KEY not in file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert KEY not in "".join(capsys.readouterr())


def test_an_answer_that_repeats_the_key_is_censored(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.textbooks.fault_server.good_answer", lambda n: f"your key is {KEY}")
    with serving(FaultServer()) as url:
        got = ask(teacher_for(url, tmp_path, monkeypatch), prompts(1))
    assert got[0].text == "your key is [key]"


def test_a_missing_key_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(TeacherStopped, match="OPENAI_API_KEY"):
        OpenAITeacher(Endpoint("m"), tmp_path / "ledger.jsonl")


def test_ctrl_c_keeps_the_answers_under_way(tmp_path, monkeypatch):
    server, got, real = FaultServer(delay=0.3), {}, openai_teacher.wait

    def interrupted_once_requests_are_out(*arguments, **options):
        if server.at_once:
            raise KeyboardInterrupt
        return real(*arguments, **{**options, "timeout": 0.01})

    monkeypatch.setattr(openai_teacher, "wait", interrupted_once_requests_are_out)
    with serving(server) as url:
        teacher = teacher_for(url, tmp_path, monkeypatch, concurrency=4, timeout=5.0)
        with pytest.raises(KeyboardInterrupt):
            teacher.answer(prompts(40), frozenset(), lambda pairs: got.update({p.key: a for p, a in pairs}))
    assert 0 < len(got) == sum(server.billed.values()) <= 4
    assert {row["event"] for row in read_jsonl(tmp_path / "ledger.jsonl")} == {"reserve", "paid"}
