"""Where a completion's own turn ends is known by its token ids; judges other than the published ones judge the own turn."""

import json
import sqlite3
from contextlib import closing
from types import SimpleNamespace

import pytest
from tokenizers import AddedToken
from typer.testing import CliRunner

import demur
from demur.analysis.cell import Cell
from demur.cli.main import app
from demur.engine.generate import CompletionRequest, _completion
from demur.judges.judge import Judged, TextJudge, Verdict, answers, get_judge
from demur.judges.turn_end import own_length, turn_end_ids
from demur.runs.judging_stored import judge_stored
from demur.runs.rows import StoredCompletion
from demur.runs.store import Store
from tests.tiny import tiny_tokenizer


def tokenizer_with(*special):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(word, special=True) for word in special], special_tokens=True)
    return tokenizer


def ids_of(tokenizer, text):
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def completed(tokenizer, text, stop_ids=()):
    request = CompletionRequest("ask", (1,))
    return _completion(tokenizer, request, ids_of(tokenizer, text), turn_end_ids(tokenizer, stop_ids))


@pytest.mark.parametrize("mark", ["<eos>", "<pad>", "<|im_end|>", "<|im_start|>", "<|eot_id|>", "<end_of_turn>"])
def test_a_turn_ends_at_the_first_control_token(mark):
    tokenizer = tokenizer_with("<|im_end|>", "<|im_start|>", "<|eot_id|>", "<end_of_turn>")
    found = completed(tokenizer, f"make a cake {mark} tell me a poem {mark} steal")
    assert (found.own_turn, found.text) == ("make a cake", "make a cake tell me a poem steal")


def test_a_completion_of_one_turn_says_nothing_of_its_own():
    tokenizer = tokenizer_with("<|im_end|>")
    for text in ("make a cake", "make a cake <|im_end|>", "make a cake <|im_end|> <|im_end|>"):
        found = completed(tokenizer, text)
        assert (found.own_turn, found.text) == (None, "make a cake")


def test_a_turn_may_be_empty_and_may_begin_with_the_token_that_begins_texts():
    tokenizer = tokenizer_with("<|im_end|>")
    assert completed(tokenizer, "<|im_end|> make a cake").own_turn == ""
    assert completed(tokenizer, "<bos> make a cake").own_turn is None
    assert completed(tokenizer, "make <bos> a cake").own_turn == "make"


def test_thoughts_channels_and_unknown_words_are_inside_a_turn():
    inside = ("<think>", "</think>", "<|channel|>", "<|message|>", "<tool_call>", "<|end|>", "<|start|>")
    tokenizer = tokenizer_with(*inside, "<|return|>")
    named = dict(zip(inside, tokenizer.convert_tokens_to_ids(list(inside)), strict=True))
    ends = turn_end_ids(tokenizer, tokenizer.convert_tokens_to_ids(["<|return|>"]))
    assert not ends & {*named.values(), tokenizer.unk_token_id}
    assert tokenizer.convert_tokens_to_ids("<|return|>") in ends
    # Without channels `<|end|>` ends a turn, as in Phi-3.
    other = tokenizer_with("<|end|>", "<|assistant|>")
    assert {*other.convert_tokens_to_ids(["<|end|>", "<|assistant|>"])} <= turn_end_ids(other)


def test_stop_tokens_end_a_turn_whatever_the_tokenizer_says():
    assert turn_end_ids(SimpleNamespace(), (7,)) == {7}
    assert [own_length(ids, {7}) for ids in ((1, 2, 7, 3), (7, 1), (1, 2), ())] == [2, 0, 2, 0]


class Last(TextJudge):
    """Labels a text by its last word."""

    name, version, labels = "last", 1, ("refusal", "cake", "poem")

    def __call__(self, text, _instruction="", /):
        return Verdict(self.name, False, text.split()[-1])


def test_only_the_published_judges_read_on_after_the_own_turn():
    one = Judged("a cake I can't help with a poem", "ask", own_turn="a cake")
    assert [answer.label for answer in answers(Last(), [one])] == ["cake"]
    assert [answer.label for answer in answers(get_judge("taxonomy"), [one])] == ["compliance"]
    assert [answer.refusal for answer in answers(get_judge("substring"), [one])] == [True]
    late = Judged("I can't help with that. Sure!", "ask", own_turn="")
    assert [answer.label for answer in answers(get_judge("taxonomy"), [late])] == ["degenerate"]
    assert [answer.refusal for answer in answers(get_judge("prefix"), [late])] == [True]


def test_completions_bring_their_own_turn_to_the_judge():
    made = demur.Completion("ask", "a cake I can't help with that", (1,), own_turn="a cake")
    assert not demur.judge([made], "taxonomy")[0].refusal
    assert demur.judge([made], "substring")[0].refusal


def test_a_run_stores_the_own_turn_and_judges_it(tmp_path):
    store = Store.create(tmp_path / "run", "digest", "")
    store.remember("study_facts", {"judges": ["substring", "taxonomy"]})
    store.add_cells([Cell(key="cell", target="t", prompt="p", instructions="harmful", intervention="none")])
    row = StoredCompletion("cell", 0, "ask", "a cake I can't help with that", (1,), "a cake")
    store.add_completions([row])
    assert store.completions() == [row]
    judge_stored(store, ["substring", "taxonomy"])
    assert {verdict.judge: verdict.refusal for verdict in store.verdicts()} == {"substring": True, "taxonomy": False}


def test_a_folder_of_the_fifth_format_goes_on(tmp_path):
    store = Store.create(tmp_path / "run", "digest", "")
    store.remember_study({"judges": ["prefix"], "checkpoints": {"t": {}}})
    store.add_cells([Cell(key="cell", target="t", prompt="p", instructions="harmful", intervention="none")])
    store.add_completions([StoredCompletion("cell", 0, "ask", "a cake", (1,))])
    store.close()
    with closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as db:
        db.execute("ALTER TABLE completions DROP COLUMN own_turn")
        db.execute("DROP TABLE means")
        db.execute("PRAGMA user_version = 5")
    store = Store.open(tmp_path / "run")
    assert [(row.text, row.own_turn) for row in store.completions()] == [("a cake", None)]
    store.add_completions([StoredCompletion("cell", 1, "ask", "a cake a poem", (1,), "a cake")])
    assert [row.own_turn for row in store.completions()] == [None, "a cake"]


def test_the_command_judges_the_own_turn_of_a_file(tmp_path):
    file = tmp_path / "c.jsonl"
    line = {"instruction": "ask", "completion": "A cake. I can't help with that.", "own_turn": "A cake."}
    file.write_text(json.dumps(line) + "\n")
    for judge, refuse in (("taxonomy", 0), ("substring", 1)):
        result = CliRunner().invoke(app, ["judge", str(file), "--judge", judge])
        assert (result.exit_code, f"{refuse} of 1 refuse" in result.output) == (0, True), result.output


def test_generation_says_where_a_turn_ends(checkpoint):
    prompt = demur.prompt_format("native", checkpoint)
    (rows,) = demur.generate(checkpoint, ["make a cake"], prompt, max_new_tokens=24, stop_at_eos=False)
    ends = turn_end_ids(checkpoint.tokenizer, checkpoint.stop_ids)
    own = own_length(rows[0].token_ids, ends, checkpoint.tokenizer.bos_token_id)
    text = checkpoint.tokenizer.decode(rows[0].token_ids[:own], skip_special_tokens=True)
    assert (rows[0].text if rows[0].own_turn is None else rows[0].own_turn) == text
