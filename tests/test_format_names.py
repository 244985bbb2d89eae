"""Readable names of prompt formats that are given as texts, and runs that began under other names."""

import json
import tomllib

import pytest

import demur
from demur.core.errors import InputError
from demur.inputs.format_names import earlier_name, format_name
from demur.inputs.prompt_formats import FORMATS
from demur.runs.run import Run
from demur.runs.runner import run
from demur.runs.store import Store
from demur.study.plan import make_plan
from demur.study.spec import make_study
from demur.study.study_files import load_study
from tests.test_study import changed
from tests.tiny_study import contents
from tests.tiny_study import make_study as make_tiny_study

WITH_PAGE = Run.report
TEXT = "Question: {instruction}\nAnswer:"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (TEXT, "question-answer"),
        ("Question: {instruction}\\nAnswer:", "question-answer"),
        ("Below is a task.\n### Instruction:\n{instruction}\n\n### Response:\n", "instruction-response"),
        ("<|user|>\n{instruction}<|end|>\n<|assistant|>\n", "user-assistant-2"),
        ("<|im_start|>human\n{instruction}<|im_end|>\n<|im_start|>bot\n", "human-bot"),
        ("[INST] {instruction} [/INST]", "inst"),
        ("User: {instruction}\n\nAssistant:", "user-assistant-2"),
        ("{instruction}", "bare"),
        ("質問: {instruction}\n答え:", "text"),
        ("Random: {instruction}\n1:", "text-random-1"),
        *((text, name) for name, text in FORMATS.items()),
    ],
)
def test_a_text_has_a_readable_name(text, name):
    assert format_name(text) == name
    study = make_study(changed(checkpoints={"base": {"model": "a/b", "prompts": [text]}}))
    assert [arm.name for arm in make_plan(study).arms] == [f"base/{name}"]


def with_formats(*formats, **changes):
    return make_study(changed(checkpoints={"base": {"model": "a/b", "prompts": list(formats)}}, **changes))


def names(study):
    return [arm.prompt for arm in make_plan(study).arms]


def test_names_are_unique_in_a_study_and_a_text_has_one_name():
    other = "Do answer.\nQuestion: {instruction}\nAnswer:"
    study = make_study(
        changed(
            checkpoints={
                "base": {"model": "a/b", "prompts": [TEXT, other, "chatml"]},
                "chat": {"model": "a/c", "prompts": other},
            }
        )
    )
    assert [arm.name for arm in make_plan(study).arms] == [
        "base/question-answer", "base/question-answer-2", "base/chatml", "chat/question-answer-2",
    ]  # fmt: skip
    assert study.prompts == {"question-answer": TEXT, "question-answer-2": other}
    assert make_study(tomllib.loads(study.toml())) == study


def test_a_name_that_the_study_gives_is_used():
    assert names(with_formats("plain", prompts={"plain": TEXT})) == ["plain"]
    assert names(with_formats(TEXT, prompts={"plain": TEXT})) == ["plain"]
    assert names(with_formats(TEXT, prompts={"question-answer": "x {instruction}"})) == ["question-answer-2"]
    # The study's own name wins over the shipped format of the same name.
    own = with_formats("chatml", FORMATS["chatml"], prompts={"chatml": "x {instruction}"})
    assert names(own) == ["chatml", "user-assistant-2"]


def test_a_text_and_its_derived_name_are_the_same_study():
    assert with_formats(TEXT) == with_formats("question-answer", prompts={"question-answer": TEXT})
    assert with_formats(FORMATS["pythia"]).digest == with_formats("pythia").digest


def test_a_published_rate_names_the_format_as_the_study_does():
    published = [{"work": "x", "rates": [{"target": "base", "prompt": TEXT, "instructions": "harmful", "rate": 0.5}]}]
    assert with_formats(TEXT, published=published).published[0].rates[0].prompt == "question-answer"


def test_a_text_with_several_places_is_refused_as_before():
    with pytest.raises(InputError, match=r"holds \{instruction\} 2 times"):
        make_plan(with_formats("{instruction} {instruction}"))


@pytest.fixture(autouse=True)
def without_pages(monkeypatch):
    """A run ends with its verdicts. One test looks at the page, which takes longer than all the rest here."""
    monkeypatch.setattr(Run, "report", Run.judge_stored)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    make_tiny_study(folder)
    return folder


@pytest.fixture
def study(place):
    def loaded(*formats, **prompts):
        written = [json.dumps(list(formats))]
        own = [f"prompts.{name}={json.dumps(text)}" for name, text in prompts.items()]
        return load_study(place / "study.toml", [f"checkpoints.chat.prompts={written[0]}", "measurements=[]", *own])

    return loaded


def as_an_earlier_version_stored_it(study, out):
    """The folder of a run of this study as the version made it that named texts by their hash. Some completions are missing."""
    facts = study.model_dump(mode="json")
    texts = dict(facts["prompts"])
    hashed = {name: earlier_name(text) for name, text in texts.items()}

    def stored(prompts, called):
        checkpoints = {
            name: {**spec, "prompts": [called.get(one, one) for one in spec["prompts"]]}
            for name, spec in facts["checkpoints"].items()
        }
        return {**facts, "prompts": prompts, "checkpoints": checkpoints}

    run(make_study(stored({hashed[name]: text for name, text in texts.items()}, hashed)), out).close()
    store = Store.open(out)
    store.remember_all({"study": "0123456789abcdef", "study_facts": stored({}, texts)})
    with store._transaction() as db:
        db.execute("DELETE FROM meta WHERE key = 'deciding'")
        db.execute("DELETE FROM verdicts")
        db.execute("DELETE FROM completions WHERE cell LIKE 'chat%' AND position = 1")
    store.close()


def keys(out):
    return {cell.key for cell in Store.open(out).cells()}


def test_a_run_of_an_earlier_version_opens_reports_and_goes_on_under_its_names(place, study, tmp_path):
    wanted = study(TEXT, "User: {instruction}\n\nAssistant:")
    out, told = tmp_path / "old", []
    as_an_earlier_version_stored_it(wanted, out)
    before = keys(out)
    old = earlier_name(TEXT)
    assert any(key.startswith(f"chat/{old}|") for key in before)
    with demur.open_run(out) as opened:
        WITH_PAGE(opened)
        assert {cell["prompt"] for cell in opened.summary()["cells"] if cell["target"] == "chat"} == {
            old, earlier_name("User: {instruction}\n\nAssistant:"),
        }  # fmt: skip
    missing = sum(1 for key in before if key.startswith("chat"))
    done = sum(Store.open(out).progress().values())
    with run(wanted, out, tell=told.append) as finished:
        assert len(finished.completions()) == done + missing
    assert keys(out) == before
    assert told == [
        f"'{out}' keeps the names of prompt formats that it began with: '{old}' for 'question-answer', "
        f"'{earlier_name('User: {instruction}' + chr(10) * 2 + 'Assistant:')}' for 'user-assistant-2'"
    ]
    # Once more, and from the study that the folder now has.
    finished_contents = contents(out)
    for again in (wanted, load_study(out / "study.toml")):
        run(again, out).close()
        assert contents(out) == finished_contents


def test_a_run_of_an_earlier_version_grows_under_its_names(study, tmp_path):
    out = tmp_path / "old"
    as_an_earlier_version_stored_it(study(TEXT, "chatml"), out)
    told = []
    run(study(TEXT, "chatml", "Human: {instruction}\nAI:"), out, tell=told.append).close()
    assert any("goes on with a larger study" in sentence for sentence in told)
    prompts = {key.split("|")[0] for key in keys(out) if key.startswith("chat/")}
    assert prompts == {f"chat/{earlier_name(TEXT)}", "chat/chatml", "chat/human-ai"}


def test_a_shipped_text_that_an_earlier_version_named_by_its_hash_keeps_that_name(study, tmp_path):
    out = tmp_path / "old"
    earlier = study("hashed", hashed=FORMATS["pythia"])
    as_an_earlier_version_stored_it(earlier, out)
    run(study(FORMATS["pythia"]), out).close()
    assert {key.split("|")[0] for key in keys(out)} == {"base/user-assistant", f"chat/{earlier_name(FORMATS['pythia'])}"}
    assert names(study(FORMATS["pythia"])) == ["user-assistant", "pythia"]


def test_a_format_keeps_its_name_when_the_study_names_it_otherwise(study, tmp_path):
    out = tmp_path / "run"
    run(study(TEXT), out).close()
    before = contents(out)
    run(study("plain", plain=TEXT), out).close()
    assert contents(out) == before
    with pytest.raises(InputError, match="prompts"):
        run(study("question-answer", **{"question-answer": "Ask: {instruction}"}), out)


def test_a_format_in_front_of_another_changes_no_name_in_a_run(study, tmp_path):
    """Two texts with the same words are numbered in the order of the study; a run keeps the numbers that it began with."""
    out, first, second = tmp_path / "run", "A.\nAsk: {instruction}\nSay:", "B.\nAsk: {instruction}\nSay:"
    run(study("native", second), out).close()
    found = names(study(first, "native", second))
    assert found == ["user-assistant", "ask-say", "native", "ask-say-2"]
    run(study("native", second, first), out).close()
    stored = Store.open(out).manifest().study["prompts"]
    assert stored == {"ask-say": second, "ask-say-2": first}
