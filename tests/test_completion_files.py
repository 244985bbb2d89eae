"""Files of completions that other programs write, and tables with columns of other names: what demur judge reads of them."""

import json
import zipfile

import pandas as pd
import pytest
from typer.testing import CliRunner

from demur.cli.main import app
from demur.core.errors import InputError
from demur.inputs.completions.completion_files import read_completions

NO, YES = "I cannot help with that.", "Sure, here it is."


def lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def whole(path, found):
    path.write_text(json.dumps(found))
    return path


def judge(path, *options):
    return CliRunner().invoke(app, ["judge", str(path), *options])


def reply(number, *texts, **changes):
    choices = [
        {"index": n, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} for n, text in enumerate(texts)
    ]
    body = {"id": "c", "object": "chat.completion", "choices": choices}
    response = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": f"batch_{number}", "custom_id": f"request-{number}", "response": response, "error": None, **changes}


def test_an_openai_batch(tmp_path):
    refusal = reply(2, None)
    refusal["response"]["body"]["choices"][0]["message"]["refusal"] = "I cannot do it."
    parts = reply(3, [{"type": "text", "text": YES}])
    failed = reply(4, response=None, error={"code": "expired"})
    limited = reply(5, response={"status_code": 429, "body": {"error": {"message": "x"}}})
    path = lines(tmp_path / "out.jsonl", [reply(1, NO, YES), refusal, parts, failed, limited])
    found = read_completions(path)
    assert found.completions == (NO, YES, "I cannot do it.", YES)
    assert [(row["id"], row["sample"]) for row in found.rows] == [
        ("request-1", 0),
        ("request-1", 1),
        ("request-2", 0),
        ("request-3", 0),
    ]
    assert found.notes == (
        "'out.jsonl' is read as an OpenAI batch output: 4 completions",
        "2 of 5 entries have no completion and are left out: 2 failed requests",
        "n counts 4 completions of 3 different instructions; the interval takes them as independent, so it is too narrow",
    )
    result = judge(path, "--out", str(tmp_path / "v.jsonl"))
    assert result.stdout.startswith("prefix: 2 of 4 refuse")
    assert [line for line in result.stderr.splitlines() if line.startswith("note: ")] == [f"note: {note}" for note in found.notes]
    assert json.loads((tmp_path / "v.jsonl").read_text().splitlines()[0])["completion"] == NO
    result = judge(path, "--judge", "taxonomy")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is an OpenAI batch output, which does not say what was asked, and the judge taxonomy reads that" in result.stderr


@pytest.mark.parametrize(
    "body",
    [
        {"object": "text_completion", "choices": [{"text": NO, "index": 0}]},
        {
            "object": "response",
            "output": [{"type": "reasoning"}, {"type": "message", "content": [{"type": "output_text", "text": NO}]}],
        },
        {"object": "response", "output": [{"type": "message", "content": [{"type": "refusal", "refusal": NO}]}]},
    ],
)
@pytest.mark.parametrize("batch", [True, False])
def test_other_responses_of_openai(tmp_path, body, batch):
    row = {"custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None} if batch else {"id": "a", **body}
    assert read_completions(lines(tmp_path / "out.jsonl", [row, row | {"id": "b"}])).completions == (NO, NO)


def sample(number, texts, name="none", arguments=None):
    given = arguments or {"gen_args_0": {"arg_0": f"Q: ask {number}\nA:", "arg_1": {"until": ["\n\n"]}}}
    return {
        "doc_id": number,
        "doc": {},
        "target": "x",
        "arguments": given,
        "resps": [texts],
        "filtered_resps": ["x"],
        "filter": name,
    }


def test_samples_of_lm_eval(tmp_path):
    rows = [sample(n, [NO, YES], name) for name in ("strict", "flexible") for n in range(2)]
    found = read_completions(lines(tmp_path / "samples_task_2026.jsonl", rows))
    assert found.completions == (NO, YES, NO, YES)
    assert found.instructions[:3] == ("Q: ask 0\nA:", "Q: ask 0\nA:", "Q: ask 1\nA:")
    assert "4 samples are of 2 documents, each written once for every filter; each is judged once" in found.notes
    old = lines(tmp_path / "old.jsonl", [sample(0, [NO], arguments=[["ask", {}]])])
    assert read_completions(old).instructions == ("ask",)
    chat = [[{"role": "user", "content": "ask"}]]
    assert read_completions(
        lines(tmp_path / "chat.jsonl", [sample(0, [NO], arguments=[[json.dumps(chat[0])]])])
    ).instructions == ("ask",)
    likely = lines(tmp_path / "likely.jsonl", [sample(0, [["-1.5", "False"]])])
    with pytest.raises(InputError, match="hold log-likelihoods and no texts"):
        read_completions(likely)
    assert judge(tmp_path / "samples_task_2026.jsonl", "-j", "taxonomy").exit_code == 0


def test_completions_of_harmbench(tmp_path):
    entries = {"arson": [{"test_case": "ask", "generation": NO}, {"test_case": "ask 2", "generation": YES, "label": 1}]}
    found = read_completions(whole(tmp_path / "model.json", {**entries, "theft": [{"test_case": "ask 3", "generation": NO}]}))
    assert (found.completions, found.instructions) == ((NO, YES, NO), ("ask", "ask 2", "ask 3"))
    assert found.rows[1] == {"instruction": "ask 2", "completion": YES, "behavior_id": "arson", "sample": 1}
    plain = read_completions(whole(tmp_path / "plain.json", {"arson": [NO, YES], "theft": [NO]}))
    assert (plain.completions, plain.instructions) == ((NO, YES, NO), (None, None, None))
    table = read_completions(whole(tmp_path / "table.json", {"instruction": ["a", "b"], "completion": [NO, YES]}))
    assert (table.completions, table.instructions) == ((NO, YES), ("a", "b"))


def inspected(number, *texts, given="ask", **changes):
    choices = [{"message": {"role": "assistant", "content": text}, "stop_reason": "stop"} for text in texts]
    return {"id": number, "epoch": 1, "input": given, "output": {"choices": choices}, "attachments": {}, **changes}


SAMPLES = [
    inspected(1, NO),
    inspected(1, [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": YES}], epoch=2),
    inspected(
        2, "attachment://f", given=[{"role": "system", "content": "s"}, {"role": "user", "content": "x"}], attachments={"f": NO}
    ),
    inspected(3, NO, error={"message": "x"}),
    inspected(4, "attachment://gone"),
]


def log(status="success"):
    return {"version": 2, "status": status, "eval": {"task": "t"}, "samples": SAMPLES}


def archive(path, method=zipfile.ZIP_DEFLATED, status="success"):
    with zipfile.ZipFile(path, "w", method) as made:
        made.writestr("header.json", json.dumps({**log(status), "samples": None}))
        for number, one in enumerate(SAMPLES):
            made.writestr(f"samples/{number}_epoch_{one['epoch']}.json", json.dumps(one))
        made.writestr("summaries.json", "[]")
    return path


@pytest.mark.parametrize("name", ["log.json", "log.eval"])
def test_logs_of_inspect(tmp_path, name):
    path = whole(tmp_path / name, log()) if name.endswith("json") else archive(tmp_path / name)
    found = read_completions(path)
    assert (found.completions, found.instructions) == ((NO, YES, NO), ("ask", "ask", "x"))
    assert "2 of 5 entries have no completion and are left out: 1 with an error, 1 without a text" in found.notes
    assert "n counts 3 completions of 2 different instructions" in found.notes[-1]
    assert judge(path, "-j", "taxonomy").stdout.startswith("taxonomy: 2 of 3")
    stopped = whole(path, log("cancelled")) if name.endswith("json") else archive(path, status="cancelled")
    assert "the log's status is 'cancelled', so samples may be missing" in read_completions(stopped).notes


def test_archives_that_are_none(tmp_path):
    (tmp_path / "x.eval").write_text("no")
    packed = archive(tmp_path / "p.eval", zipfile.ZIP_STORED)
    content = bytearray(packed.read_bytes())
    for place in (at for mark, shift in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)) for at in _places(content, mark, shift)):
        content[place : place + 2] = (93).to_bytes(2, "little")  # Zstandard, which later versions of Inspect use
    packed.write_bytes(content)
    for name, message in (("x.eval", "cannot be read as a log of Inspect"), ("p.eval", "convert it with inspect log convert")):
        result = judge(tmp_path / name)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert message in result.stderr
    result = judge(tmp_path / "none.eval")
    assert "there is no file" in result.stderr


def _places(content, mark, shift):
    at = content.find(mark)
    while at >= 0:
        yield at + shift
        at = content.find(mark, at + 1)


def test_columns_of_other_names(tmp_path):
    path = tmp_path / "answers.csv"
    pd.DataFrame({"prompt": ["ask", "ask 2"], "response": [NO, YES]}).to_csv(path, index=False, sep=";")
    result = judge(path)
    assert result.exit_code == 2
    assert "row 1" in result.stderr
    assert (
        "has no text under 'completion'; it has 'prompt', 'response'; name the column with --completion-column, such as "
        in result.stderr
    )
    assert judge(path, "--completion-column", "response").stdout.startswith("prefix: 1 of 2")
    result = judge(path, "--completion-column", "response", "-j", "taxonomy")
    assert "has no text under 'instruction'" in result.stderr
    assert "which the judge taxonomy reads; name the column with --instruction-column" in result.stderr
    options = ["--completion-column", "response", "--instruction-column", "prompt", "-j", "taxonomy"]
    result = judge(path, *options, "--out", str(tmp_path / "v.jsonl"))
    assert result.stdout.startswith("taxonomy: 1 of 2")
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [(row["prompt"], row["response"], row["refusal"]) for row in rows] == [("ask", NO, True), ("ask 2", YES, False)]
    assert "did you mean 'response'?" in judge(path, "--completion-column", "respose").stderr


def test_several_completions_a_row(tmp_path):
    path = lines(
        tmp_path / "many.jsonl", [{"instruction": "ask", "responses": [NO, YES, NO]}, {"instruction": "Ask", "responses": [YES]}]
    )
    found = read_completions(path, completion_column="responses")
    assert found.completions == (NO, YES, NO, YES)
    assert [row["sample"] for row in found.rows] == [0, 1, 2, 0]
    assert found.notes == (
        "n counts 4 completions of 1 different instruction; the interval takes them as independent, so it is too narrow",
    )


@pytest.mark.parametrize(
    "found",
    [
        {"version": 2, "status": "success", "eval": {}, "samples": ["x"]},
        {"version": 2, "status": "success", "eval": {}, "samples": [{"output": []}]},
        [{"custom_id": 1, "response": {"body": {"choices": [3]}}}],
        [{"doc_id": 1, "resps": 3, "arguments": []}],
        {"a": [{"generation": 3}]},
        {"version": 2, "status": "error", "eval": {}},
        {"a": 1},
        [[1]],
    ],
)
def test_files_that_are_none_of_these_are_one_sentence(tmp_path, found):
    result = judge(whole(tmp_path / "odd.json", found))
    assert result.exit_code == 2, result.output
    assert (result.stdout, result.stderr.count("\n")) == ("", 1)
    assert "odd.json" in result.stderr or "lm-eval" in result.stderr
