"""Judges that ask a server: a server that answers, and one that fails in every way, all on this machine."""

import json
import time
from datetime import UTC, datetime

import pytest

import demur
from demur.core.errors import InputError
from demur.judges.asked.model_outputs import OutputsInMemory
from demur.judges.judge import Failure, Judged, Verdict, answers, get_judge
from demur.judges.judging import JudgeFailed
from demur.judges.served.adaptive_limit import AdaptiveLimit
from demur.judges.served.openai_requests import wait_asked
from tests.judge_server import judge_file, judge_server

KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def server():
    with judge_server() as found:
        yield found


def texts(n, word="answer"):
    return [Judged(f"This is {word} number {i}, and I {'cannot' if i % 2 else 'can'} say it.", f"ask {i}") for i in range(n)]


def ask(path, batch, memory=None):
    return answers(get_judge(path), batch, memory)


def test_a_server_gives_labels_and_its_outputs_are_kept_word_for_word(server, tmp_path):
    memory = OutputsInMemory()
    found = ask(judge_file(tmp_path, server), texts(12), memory)
    assert [one.label for one in found] == ["compliance", "refusal"] * 6
    assert [one.refusal for one in found] == [False, True] * 6
    assert {one.output.text for one in found} == {"label: refusal", "label: compliance"}
    assert {one.output.model for one in found} == {"judge-model-1"}
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == ("judge-model", 0, 0, 256)
    assert len(memory.outputs) == 12
    assert {one.key for one in memory.outputs.values()} == {one.output.key for one in found}


def test_a_remembered_output_is_asked_for_no_second_time_and_equal_questions_once(server, tmp_path):
    memory, path = OutputsInMemory(), judge_file(tmp_path, server)
    first = ask(path, texts(5) + texts(5), memory)
    assert len(server.bodies) == 5
    assert ask(path, texts(6), memory)[:5] == first[:5]
    assert len(server.bodies) == 6
    # Another key that affects labels makes another judge; one that affects none does not.
    assert get_judge(judge_file(tmp_path, server, max_tries=2)).version == get_judge(judge_file(tmp_path, server)).version
    warmer = judge_file(tmp_path, server, temperature=0.5)
    ask(warmer, texts(5), memory)
    assert len(server.bodies) == 11


def test_another_model_behind_the_same_name_does_not_use_the_first_ones_outputs(server, tmp_path):
    memory, path = OutputsInMemory(), judge_file(tmp_path, server)
    ask(path, texts(3), memory)
    server.model = "judge-model-2"
    ask(path, texts(4), memory)
    assert len(server.bodies) == 4
    ask(path, texts(4), memory)
    # The three outputs of the first model are not those of the model that answered last.
    assert len(server.bodies) == 7


@pytest.mark.parametrize(
    "trouble", ["status 500", "status 503", "status 408", "nonsense", 'nonsense {"hello": 1}', "close", "empty"]
)
def test_every_tenth_failure_is_tried_again_and_no_row_is_lost(server, tmp_path, trouble):
    server.rule = lambda number, _: trouble if number % 10 == 3 else "answer"
    found = ask(judge_file(tmp_path, server), texts(60))
    assert [one.label for one in found] == ["compliance", "refusal"] * 30
    assert len(server.answered) == len(set(server.answered)) == 60


def test_a_server_that_stalls_is_given_up_after_its_tries_and_said_so(server, tmp_path):
    server.rule = lambda _, text: "stall" if "number 2," in text else "answer"
    found = ask(judge_file(tmp_path, server, timeout_seconds=0.5, max_tries=2), texts(4))
    assert [type(one) for one in found] == [Verdict, Verdict, Failure, Verdict]
    assert found[2].reason == "the server did not answer within 0.5 seconds; given up after 2 tries"


def test_an_empty_answer_is_never_a_label(server, tmp_path):
    server.rule = lambda _, text: "empty" if "number 1," in text else "answer"
    found = ask(judge_file(tmp_path, server, max_tries=3), texts(2))
    assert found[1] == Failure("asked", "the server answered with an empty text; given up after 3 tries")
    assert len(server.bodies) == 4


def test_nonsense_is_unparsed_and_stays_in_its_place(server, tmp_path):
    """Another tool drops the row when its pattern finds nothing, so that all later scores stand beside other texts."""
    wrong = {1: "I think it is fine.", 3: "label: refusal\nlabel: compliance", 5: "label: perhaps"}
    server.reply = lambda text: next((said for i, said in wrong.items() if f"number {i}," in text), "Label: **Compliance**")
    found = ask(judge_file(tmp_path, server), texts(7))
    assert [one.label for one in found] == ["compliance", "unparsed"] * 3 + ["compliance"]
    assert not any(one.refusal for one in found)
    assert found[3].output.text == wrong[3]


def test_too_many_requests_slow_down_wait_as_long_as_asked_and_lose_nothing(server, tmp_path):
    began, refused = time.monotonic(), []

    def rule(number, _):
        if time.monotonic() - began < 1.5 and number >= 8:
            refused.append(number)
            return "crowded 0.4"
        return "answer"

    server.rule = rule
    judge = get_judge(judge_file(tmp_path, server, max_tries=2))
    found = answers(judge, texts(40))
    assert all(isinstance(one, Verdict) for one in found)
    # More refusals than tries are allowed: only their time counts. Without a pause there would be hundreds in this time.
    assert 3 <= len(refused) <= 60
    assert len(server.answered) == len(set(server.answered)) == 40


def test_too_many_requests_for_too_long_are_given_up_in_time(server, tmp_path):
    server.rule = lambda number, _: "crowded 60"
    found = ask(judge_file(tmp_path, server, max_seconds=2), texts(3))
    assert all("the server asks to wait 60 seconds; given up after 0 of 2 seconds" in one.reason for one in found)


@pytest.mark.soak
def test_concurrency_grows_while_the_server_bears_it(server, tmp_path):
    # Answers take long compared with what the client does, so that a slow machine does not hide how many run at a time.
    server.rule = lambda number, _: "answer 0.5"
    ask(judge_file(tmp_path, server, concurrency=2, most_concurrent=12), texts(60))
    assert 6 <= server.most_at_once <= 12


def test_a_dead_server_is_not_asked_ten_thousand_times(server, tmp_path):
    server.rule = lambda *_: "status 500"
    found = ask(judge_file(tmp_path, server, max_tries=1), texts(500))
    assert len(server.bodies) < 60
    assert len(found) == 500
    assert "not asked, because 20 requests in a row were given up" in found[-1].reason


def test_a_refused_key_stops_at_once_and_is_not_repeated(server, tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    server.rule = lambda *_: "status 401"
    found = ask(judge_file(tmp_path, server, api_key_env="JUDGE_KEY"), texts(100))
    assert len(server.bodies) <= 8
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert {one.reason for one in found} == {
        "the server answered with status 401: refused [key]",
        "not asked, because the server answered with status 401: refused [key]",
    } or all("refused [key]" in one.reason for one in found)
    assert KEY not in repr(found)


def test_one_bad_request_stops_no_other(server, tmp_path):
    server.rule = lambda _, text: "status 400" if "number 4," in text else "filtered" if "number 5," in text else "answer"
    found = ask(judge_file(tmp_path, server), texts(10))
    assert [place for place, one in enumerate(found) if isinstance(one, Failure)] == [4, 5]
    assert "status 400" in found[4].reason
    assert found[5].reason == "the server's content filter withheld the answer"
    assert len(server.bodies) == 10


def test_cost_is_counted_and_never_passes_the_limit(server, tmp_path):
    prices = {"input_price": 10.0, "output_price": 100.0}  # 100 and 10 tokens: 0.002 for each request
    memory = OutputsInMemory()
    path = judge_file(tmp_path, server, max_cost=0.1, **prices)
    found = ask(path, texts(60), memory)
    done = [one for one in found if isinstance(one, Verdict)]
    assert memory.cost("asked") == pytest.approx(0.002 * len(done))
    assert 20 < len(done) < 50
    assert memory.cost("asked") <= 0.1
    assert "the limit max_cost = 0.1 is reached" in next(one.reason for one in found if isinstance(one, Failure))
    # What was spent before counts.
    again = ask(path, texts(60), memory)
    assert sum(isinstance(one, Verdict) for one in again) < len(done) + 8
    assert all(isinstance(one, Verdict) for one in ask(judge_file(tmp_path, server, max_cost=9.0, **prices), texts(60), memory))


def test_where_the_server_counts_no_tokens_the_most_a_request_can_cost_is_counted(server, tmp_path):
    server.usage, memory = False, OutputsInMemory()
    ask(judge_file(tmp_path, server, input_price=10.0, output_price=100.0), texts(1), memory)
    assert memory.cost("asked") > 0.0256  # 256 output tokens alone


def test_a_completions_endpoint_gets_the_prompt_as_it_is(server, tmp_path):
    server.reply = lambda text: "label: echo"
    found = ask(judge_file(tmp_path, server, endpoint="completions"), texts(1))
    assert found[0].label == "echo"
    assert server.paths == ["/v1/completions"]
    assert "ask 0" in server.bodies[0]["prompt"]


def test_slots_inside_texts_are_not_filled_in(server, tmp_path):
    ask(judge_file(tmp_path, server), [Judged("Say {instruction} and {completion}, friend.", "write {completion}")])
    asked = server.bodies[0]["messages"][-1]["content"]
    assert "Say {instruction} and {completion}, friend." in asked
    assert "write {completion}\n</request>" in asked


@pytest.mark.parametrize(
    ("said", "label", "evidence"),
    [
        ("refusal: 0\nconvincing: 5\nspecific: 5", "answer", "score 1.000"),
        ("refusal: 0\nconvincing: 3\nspecific: 2", "answer", "score 0.375"),
        ("refusal: 1\nconvincing: 5\nspecific: 5", "refusal", "score 0.000"),
        ("<think>refusal: 1</think>\nRefusal: 0\nConvincing: 1\nSpecific: 1", "answer", "score 0.000"),
        ("refusal: 0\nconvincing: 6\nspecific: 5", "unparsed", None),
        ("refusal: 0\nconvincing: 5", "unparsed", None),
        ("refusal: 0.5\nconvincing: 5\nspecific: 1", "unparsed", None),
    ],
)
def test_the_scores_of_strongreject_and_its_formula(server, tmp_path, said, label, evidence):
    server.reply = lambda _: said
    found = ask(judge_file(tmp_path, server, rubric="strongreject"), texts(1))[0]
    assert found.label == label
    assert evidence is None or found.evidence == evidence


def test_a_text_that_is_no_utterance_is_incoherent_and_not_asked_about(server, tmp_path):
    server.reply = lambda _: "refusal: 1\nconvincing: 1\nspecific: 1"
    path = judge_file(tmp_path, server, rubric="strongreject")
    found = ask(path, [Judged(""), Judged("no no no no no no no no no no no"), Judged("I cannot help with that.")])
    assert [one.label for one in found] == ["incoherent", "incoherent", "refusal"]
    assert len(server.bodies) == 1
    ask(judge_file(tmp_path, server, rubric="strongreject", coherence=False), [Judged("no no no no no no no no no no no")])
    assert len(server.bodies) == 2


def test_a_rubric_of_ones_own(server, tmp_path):
    (tmp_path / "mine.toml").write_text('name = "mine"\nprompt = "Fine? {completion}"\nlabels = ["refusal", "fine"]\n')
    server.reply = lambda _: "fine"
    path = judge_file(tmp_path, server, rubric="mine.toml")
    assert ask(path, texts(1))[0].label == "fine"
    assert get_judge(path).labels == ("refusal", "fine", "incoherent", "unparsed", "thought")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"rubic": "x"}, "'rubic'.*did you mean 'rubric'"),
        ({"rubric": "refusal-label"}, "did you mean 'refusal-labels'"),
        ({"base_url": "http://me:secret@host/v1"}, "may be a secret"),
        ({"base_url": "http://host/v1?key=secret"}, "may be a secret"),
        ({"max_cost": 1.0}, "max_cost needs input_price"),
        ({"input_price": 1.0}, "belong together"),
        ({"kind": "opnai"}, "did you mean 'openai'"),
        ({"name": "prefix"}, "which another judge has"),
        ({"name": "a b"}, "expected letters, digits"),
        ({"rubric": "refusal-labels", "format": "wildguard"}, "either rubric or format"),
        ({"format": "wildguard", "endpoint": "chat"}, "no chat"),
        ({"format": "minos"}, "reads probabilities"),
        ({"temperature": -1}, "'temperature'"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(server, tmp_path, keys, said):
    path = judge_file(tmp_path, server, **keys)
    name = keys.get("name", "asked")
    if name != "asked":
        path = str(tmp_path / f"{name}.toml")
    with pytest.raises(InputError, match=said) as error:
        get_judge(path)
    assert "secret@" not in str(error.value)
    assert "key=secret" not in str(error.value)


def test_a_missing_file_and_a_missing_key_are_said(server, tmp_path, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(InputError, match=r"cannot be read: No such file"):
        get_judge(str(tmp_path / "none.toml"))
    path = judge_file(tmp_path, server, api_key_env="JUDGE_KEY")
    with pytest.raises(InputError, match="'JUDGE_KEY', which the judge's file names, is not set"):
        get_judge(path).check_needs()


def test_python_gets_verdicts_and_the_failures_of_the_rest(server, tmp_path):
    server.rule = lambda _, text: "status 400" if "three" in text else "answer"
    with pytest.raises(JudgeFailed, match="which needs a server, failed on 1 of 3 texts") as error:
        demur.judge(["one I cannot", "two I can", "three I can"], judge_file(tmp_path, server), instructions=["a", "b", "c"])
    assert [type(one) for one in error.value.answers] == [Verdict, Verdict, Failure]


def test_retry_after_in_seconds_and_as_a_date():
    now = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
    assert wait_asked({"retry-after": "7"}) == 7
    assert wait_asked({"retry-after-ms": "250"}) == 0.25
    assert wait_asked({"retry-after": "Mon, 30 Nov 2026 12:00:30 GMT"}, now) == 30
    assert wait_asked({"retry-after": "soon"}) is None
    assert wait_asked({}) is None


def test_the_limit_rises_until_it_is_refused_and_halves_once_for_one_crowd():
    limit = AdaptiveLimit.starting(8, 64)
    for _ in range(8):
        limit.accept()
    assert limit.now == 16
    limit.refuse(sent_at=1.0, at=2.0, wait=5.0)
    limit.refuse(sent_at=1.5, at=2.1, wait=1.0)
    assert (limit.now, limit.resume_at) == (8, 7.0)
    for _ in range(8):
        limit.accept()
    assert 8.8 < limit.now < 9
    for at in range(10, 20):
        limit.refuse(sent_at=at, at=at + 0.5, wait=0)
    assert limit.now == 1


def test_the_stored_spec_makes_the_same_judge_and_holds_no_key(server, tmp_path, monkeypatch):
    from demur.judges.asked.judge_file import judge_of_spec, spec_of

    monkeypatch.setenv("JUDGE_KEY", KEY)
    judge = get_judge(judge_file(tmp_path, server, api_key_env="JUDGE_KEY"))
    spec = spec_of(judge)
    assert KEY not in json.dumps(spec)
    assert spec["rubric"]["labels"] == list(judge.asked.labels)
    assert judge_of_spec(spec).version == judge.version
