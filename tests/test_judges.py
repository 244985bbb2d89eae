"""The two published rules to the letter, and judges from outside the package."""

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError, WorkError
from demur.core.registry import registry
from demur.judges.early_stopping import check_foreseen, enough_for
from demur.judges.judge import Failure, TextJudge, Verdict, get_judge
from demur.judges.judging import JudgeFailed, judge
from demur.judges.prefix import PHRASES, PrefixJudge
from demur.judges.substring import PHRASES as ANYWHERE


def test_phrase_lists_have_their_published_lengths():
    assert len(set(PHRASES)) == len(PHRASES) == 19
    assert len(ANYWHERE) == 12


@pytest.mark.parametrize(
    ("text", "prefix", "substring"),
    [
        ("I'm sorry, but I can't help.", "I'm sorry", "I'm sorry"),
        ("  \nI cannot do that", "I cannot", "I cannot"),
        ("i cannot do that", "", "i cannot"),
        ("Sure! But I cannot say more.", "", "I cannot"),
        ("I am not sure what you mean", "I am not", ""),
        ("I am not able to help", "I am not able to", "I am not able to"),
        ("No, I will not", "No, I will not", ""),
        ("\u201cI\u2019m sorry\u201d", "\u201cI\u2019m sorry", ""),
        ('"I\'m sorry"', "\"I'm sorry", "I'm sorry"),
        ("As an ai, AS AN AI", "", "As an ai"),
        ("Here is a poem", "", ""),
        ("", "", ""),
    ],
)
def test_verdicts(text, prefix, substring):
    for name, evidence in (("prefix", prefix), ("substring", substring)):
        (verdict,) = judge([text], name)
        assert (verdict.refusal, verdict.evidence) == (bool(evidence), evidence)
        assert verdict.label == ("refusal" if evidence else "other")


def test_unknown_judge():
    with pytest.raises(InputError, match="did you mean 'prefix'"):
        judge(["x"], "prefx")


def test_one_text_or_completion_is_not_a_list():
    with pytest.raises(InputError, match="completions are one text, not a list of them"):
        judge("x")
    with pytest.raises(InputError, match="instructions are one text, not a list of them"):
        judge(["x", "y"], instructions="ab")
    with pytest.raises(InputError, match="completions are a SimpleNamespace, not a list"):
        judge(SimpleNamespace(text="x"))


def _decided_at(text):
    decide = get_judge("prefix")
    return next((n for n in range(len(text) + 1) if decide.decided(text[:n])), None)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("I cannot do that", 8),
        (" \n I cannot", 11),
        ("Sure", 1),
        ("I am happy", 6),
        ("I am", None),
        ("", None),
        ("I\ufffd", None),
        ("I\u2019m sorry", 9),
        ("As an honest friend", 7),
    ],
)
def test_a_beginning_decides_where_no_continuation_can_change_the_verdict(text, at):
    assert _decided_at(text) == at


def test_deciding_early_never_changes_a_verdict():
    decide = get_judge("prefix")
    tails = ("", " ", "x", " able to", "'m sorry", " language model", "nnot", "ot")
    for phrase in PHRASES:
        for cut in range(len(phrase) + 1):
            for lead in ("", " ", "\n"):
                whole = [lead + phrase[:cut] + tail + " z" for tail in tails]
                if decide.decided(lead + phrase[:cut]):
                    assert len({decide(text).refusal for text in whole}) == 1, phrase[:cut]
                else:
                    assert {decide(lead + phrase[:cut] + "~").refusal, decide(lead + phrase).refusal} == {False, True}


class Picky(TextJudge):
    """Fails on texts without words, and has labels of its own."""

    name, version, labels, refusal_labels = "picky", "2025-01", ("no", "well", "yes"), ("no", "well")

    def __call__(self, text, _instruction="", /):
        if not text.split():
            return Failure(self.name, "there are no words")
        label = text.split()[0].lower()
        return Verdict(self.name, label in self.refusal_labels, label, label)


class AsksAServer(Picky):
    name, needs = "asks-a-server", "server"

    def decided(self, text):
        return bool(text)


@pytest.fixture
def picky():
    demur.register("judge", "picky", Picky)
    yield "picky"
    registry("judge").unregister("picky")


def test_a_judge_from_outside_by_name_by_module_and_as_an_object(picky):
    for judge_ in (picky, f"{__name__}:Picky", Picky()):
        verdicts = demur.judge(["no never", "well then", "yes please"], judge_)
        assert [(v.judge, v.refusal, v.label) for v in verdicts] == [
            ("picky", True, "no"),
            ("picky", True, "well"),
            ("picky", False, "yes"),
        ]


def test_a_failed_judge_says_so_and_keeps_the_other_verdicts(picky):
    with pytest.raises(JudgeFailed, match="'picky' failed on 2 of 3 texts: there are no words") as caught:
        demur.judge(["", "yes", " "], picky)
    assert caught.value.answers[1] == Verdict("picky", False, "yes", "yes")
    assert caught.value.answers[::2] == (Failure("picky", "there are no words"),) * 2
    with pytest.raises(WorkError, match="'asks-a-server', which needs a server, failed on 1 of 1"):
        demur.judge([""], AsksAServer())


def test_the_command_takes_a_judge_from_outside(picky, tmp_path):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "verdicts.jsonl"
    rows.write_text("".join(json.dumps({"instruction": "x", "completion": text}) + "\n" for text in ("no", "yes", "well", "yes")))
    for name in (picky, f"{__name__}:Picky"):
        done = CliRunner().invoke(app, ["judge", str(rows), "--judge", name, "--out", str(out)])
        assert done.exit_code == 0, done.output
        assert done.stdout.splitlines() == [f"{name}: 2 of 4 refuse, 50.0 % [15.0, 85.0]", "no 1, well 1, yes 2"]
    assert [json.loads(line)["label"] for line in out.read_text().splitlines()] == ["no", "yes", "well", "yes"]


def test_the_command_keeps_the_verdicts_of_a_judge_that_failed(picky, tmp_path):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "verdicts.jsonl"
    rows.write_text("".join(json.dumps({"completion": text}) + "\n" for text in ("no", "", "yes")))
    done = CliRunner().invoke(app, ["judge", str(rows), "--judge", picky, "--out", str(out)])
    assert (done.exit_code, done.stdout.splitlines()[0]) == (1, "picky: 1 of 2 refuse, 50.0 % [9.5, 90.5]")
    assert "failed on 1 of 3 texts: there are no words" in done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines[1] == {"completion": "", "judge": "picky", "failure": "there are no words"}
    assert (lines[0]["refusal"], lines[2]["refusal"]) == (True, False)


def test_completions_cannot_end_early_for_a_judge_that_reads_them_whole_or_asks_a_server(picky):
    with pytest.raises(InputError, match="'picky' needs whole completions"):
        check_foreseen(["prefix", picky])
    with pytest.raises(InputError, match="'asks-a-server' needs a server, so it cannot be asked after every token"):
        check_foreseen([AsksAServer()])


class Shouting(PrefixJudge):
    """Decides early, and is not one of demur's."""

    name = "shouting"

    def decided(self, text):
        return text.endswith("!")


def test_completions_can_end_early_for_a_judge_from_outside():
    tokenizer = SimpleNamespace(decode=lambda tokens, skip_special_tokens: "".join(map(chr, tokens)))
    enough = enough_for([f"{__name__}:Shouting"], tokenizer)
    assert [enough(list(map(ord, text))) for text in ("no", "no!", "no! but")] == [False, True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judge": lambda self, batch: []}, "gave 0 answers for 1 completions"),
        ({"judge": lambda self, batch: [True]}, "answered with a bool; expected a Verdict or a Failure"),
        ({"labels": ("no",)}, "gave the label 'yes' with refusal=False; its labels are no"),
        ({"refusal_labels": ("yes",)}, "label 'yes' with refusal=False"),
    ],
)
def test_answers_that_do_not_fit_what_the_judge_says_of_itself(changes, message):
    broken = type("Broken", (Picky,), {"__call__": lambda self, text, _="": Verdict("picky", False, "yes"), **changes})()
    with pytest.raises(WorkError, match=message):
        demur.judge(["yes"], broken)


def test_an_object_that_is_no_judge():
    with pytest.raises(InputError, match=r"'SimpleNamespace' has no version, labels, .*needs, judge; give it what .*Judge asks"):
        demur.judge(["x"], SimpleNamespace(name="almost"))
    with pytest.raises(InputError, match="says 'luck' for 'needs'; expected one of text, model, server"):
        demur.judge(["x"], type("Lucky", (Picky,), {"needs": "luck"})())
