"""The measurement `harmfulness`: projections and the question against plain torch, and what is said of harm and refusal."""

import json

import numpy
import pytest
import torch

import demur
from demur.analysis.harm.harm_answers import harm_answers
from demur.analysis.harm.harm_results import MeasuredHarm, harm_results
from demur.core.errors import InputError
from demur.core.statistics import auroc_interval
from demur.measurements.harm.harm_measurement import instruction_position
from demur.measurements.harm.harm_words import QUESTION
from demur.report.sections.section import ReportView, made_sections
from demur.runs.jobs import MeasureJob, pending_jobs
from demur.runs.store import Store
from demur.runs.stored_records import cell_of
from demur.study.plan import make_plan
from demur.study.preflight import check
from demur.study.spec import make_study as study_of
from tests.report.made_run import make_run
from tests.test_summary import cell
from tests.tiny import CHAT, tiny_tokenizer
from tests.tiny_study import make_study

ASKED = {"name": "harmfulness", "coefficient": 2.0, "instructions": 2}
LOOKALIKES = ("kill a process", "plant a bomb plant", "steal the sky")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harm")
    given = demur.load_study(make_study(folder)).model_dump(mode="json")
    for name in ("base", "chat"):
        tokenizer = tiny_tokenizer(chat_template=CHAT)
        tokenizer.add_tokens(["Certainly", "No"])
        tokenizer.save_pretrained(folder / name)
    (folder / "lookalike.jsonl").write_text("\n".join(json.dumps({"instruction": one}) for one in LOOKALIKES))
    sets = {**given["instructions"], "lookalike": {"source": str(folder / "lookalike.jsonl"), "test": 3, "split": "all"}}
    return study_of({**given, "instructions": sets, "measurements": [ASKED]})


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    demur.run(study, folder)
    return folder


@pytest.fixture(scope="module")
def chat(study):
    checkpoint = demur.load_checkpoint(study.checkpoints["chat"].model, name="chat")
    return checkpoint, demur.prompt_format("native", checkpoint)


def streams(checkpoint, ids, position):
    """The input of every layer at one position, with transformers alone."""
    with torch.inference_mode():
        hidden = checkpoint.engine.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    return torch.stack([one[0, position] for one in hidden[: checkpoint.n_layers]]).double()


def test_every_set_is_projected_on_the_directions_at_both_tokens(study, folder, chat):
    checkpoint, prompt = chat
    store = Store.open(folder)
    found = {one.subject: one.record for one in store.measurements()}
    # Cells with an edit are not measured.
    assert set(found) == {f"{arm}|{name}|none" for arm in ("base/user-assistant", "chat/native") for name in study.sets}
    ready = check(make_plan(study))
    for token, position in (("instruction", -2), ("prompt", -1)):
        means = {}
        for label in ("harmful", "harmless"):
            ids = prompt.encode(ready.material[label].train)
            means[label] = torch.stack([streams(checkpoint, one, position) for one in ids]).mean(0)
        difference = means["harmful"] - means["harmless"]
        for name in study.sets:
            record = found[f"chat/native|{name}|none"]
            rows = [row.instruction for row in store.completions(f"chat/native|{name}|none")]
            for place, ids in enumerate(prompt.encode(rows)):
                moved = streams(checkpoint, ids, position) - means["harmless"]
                expected = (moved * difference).sum(-1) / difference.square().sum(-1)
                numpy.testing.assert_allclose(record.arrays[token][place][1:], expected[1:], atol=1e-4)
    assert record.facts["positions"] == [-2, -1]
    assert record.facts["tokens"] == ["a token of the instruction", "ASSISTANT"]
    store.close()


def test_the_question_is_asked_under_edits_of_the_tokens_before_it(study, folder, chat):
    checkpoint, prompt = chat
    store = Store.open(folder)
    record = {one.subject: one.record for one in store.measurements()}["chat/native|harmless|none"]
    texts = [row.instruction for row in store.completions("chat/native|harmless|none")][:2]
    store.close()
    assert record.facts["edits"] == ["none", "ablate instruction", "add instruction", "ablate prompt", "add prompt"]
    words = {name: prompt.tokenizer.convert_tokens_to_ids(word) for name, word in (("certainly", "Certainly"), ("no", "No"))}
    ready = check(make_plan(study))
    raw = {}
    for label in ("harmful", "harmless"):
        raw[label] = torch.stack([streams(checkpoint, ids, -2)[1] for ids in prompt.encode(ready.material[label].train)]).mean(0)
    vector = 2.0 * (raw["harmful"] - raw["harmless"])
    for place, text in enumerate(texts):
        ids = torch.tensor(prompt.encode([f"{text} {QUESTION}"]))
        before = len(prompt.encode([text])[0]) - 1  # without the template's last token

        def added(_, args, before=before):
            stream = args[0].clone()
            stream[:, :before] += vector.to(stream.dtype)
            return (stream, *args[1:])

        for edit, hook in ((0, None), (2, added)):
            handle = None if hook is None else checkpoint.engine.model.model.layers[1].register_forward_pre_hook(hook)
            with torch.inference_mode():
                chances = checkpoint.engine.model(ids).logits[0, -1].double().softmax(-1)
            if handle is not None:
                handle.remove()
            for name, token in words.items():
                assert record.arrays[name][edit, place] == pytest.approx(float(chances[token]), rel=1e-4)
    assert numpy.abs(record.arrays["certainly"][0] - record.arrays["certainly"][2]).max() > 1e-4


def test_a_summary_has_each_arm_and_each_set(study, folder):
    with demur.open_run(folder) as run:
        summary = run.summary()
    assert [one["arm"] for one in summary["harmfulness"]] == ["base/user-assistant", "chat/native"]
    one = summary["harmfulness"][1]
    assert [each["instructions"] for each in one["sets"]] == list(study.sets)
    assert {answer["edit"] for answer in one["answers"]} >= {"none", "add prompt"}
    assert all(answer["n"] == 2 for answer in one["answers"])
    store = Store.open(folder)
    assert pending_jobs(check(make_plan(study)), store) == []
    store.close()


def test_one_job_measures_the_sets_of_an_arm(study, tmp_path):
    demur.run(study.model_copy(update={"measurements": []}), tmp_path / "run")
    store = Store.open(tmp_path / "run")
    jobs = [job for job in pending_jobs(check(make_plan(study)), store) if isinstance(job, MeasureJob)]
    store.close()
    assert [job.subject for job in jobs] == ["base/user-assistant", "chat/native"]
    assert [len(job.cells) for job in jobs] == [3, 3]


def test_a_format_without_a_token_after_the_instruction_is_refused(chat):
    checkpoint, prompt = chat
    assert instruction_position(prompt) == -2
    with pytest.raises(InputError, match="has no token after the instruction"):
        instruction_position(demur.prompt_format("USER: {instruction}", checkpoint))


def measured(places, edits=("none",), yes=0.9, layers=3):
    rows = tuple(tuple(place for _ in range(layers)) for place in places)
    return MeasuredHarm(
        {"instruction": rows, "prompt": tuple(reversed(rows))},
        (float("nan"), 0.5, 0.6)[:layers],
        1,
        ("a token of the instruction", "\n"),
        edits,
        tuple((yes * 0.5,) * len(places) for _ in edits),
        tuple(((1 - yes) * 0.5,) * len(places) for _ in edits),
    )


def results(refused, probabilities=None, harmful=range(1, 11)):
    cells = [cell_of(cell(name, instructions=name)) for name in ("harmful", "harmless", "lookalike")]
    texts = {
        "harmful": measured([float(place) for place in harmful]),
        "harmless": measured([-1.0] * 10, yes=0.2),
        "lookalike": measured([2.5] * 10),
    }
    verdicts = {("harmful", "prefix"): dict(enumerate(refused)), ("harmless", "prefix"): dict.fromkeys(range(10), False)}
    return harm_results(cells, texts, verdicts, "prefix", {} if probabilities is None else {"harmful": probabilities})


def test_refused_and_answered_instructions_are_compared_by_verdicts():
    (one,) = results([False] * 5 + [True] * 5)
    first, last = one.separations
    assert (one.split, one.refused, one.answered, one.hardly_refuses) == ("verdict", 5, 5, False)
    assert first.harm[1].auroc == 1.0
    # The refused instructions lie highest along the one direction and lowest along the other.
    assert (first.refusal[1].auroc, last.refusal[1].auroc) == (1.0, 0.0)
    assert first.refusal[1].ci95 == auroc_interval(1.0, 5, 5)
    assert one.cosine == (None, 0.5, 0.6)
    assert [each.place["instruction"] for each in one.sets] == [5.5, -1.0, 2.5]
    assert [each.refused for each in one.sets] == [0.5, 0.0, None]
    assert one.sets[1].against_harmless == {"instruction": None, "prompt": None}
    assert one.answers[0].yes == pytest.approx(0.9)
    assert one.answers[0].mass == pytest.approx(0.5)
    (said,) = harm_answers([one])
    assert "among harmful ones refused from answered ones (5 against 5) with 1.00" in said.text
    assert said.shown


def test_without_enough_refusals_the_probability_divides_or_nothing_does():
    chances = {place: place / 100 for place in range(10)}
    (one,) = results([False] * 10, chances)
    assert (one.split, one.refused, one.answered, one.hardly_refuses) == ("probability", 5, 5, True)
    (said,) = harm_answers([one])
    assert "those more likely to be refused from the others (5 against 5)" in said.text
    assert said.text.endswith("it hardly refuses, so its direction is shown to be one of harm, not of refusal.")
    assert said.shown is False
    (one,) = results([True] * 9 + [False])
    assert (one.split, one.separations[0].refusal) == ("", (None, None, None))
    (said,) = harm_answers([one])
    assert "too few harmful instructions are refused or answered" in said.text


def test_many_arms_are_one_sentence():
    (one,) = results([False] * 5 + [True] * 5)
    (said,) = harm_answers([one] * 5)
    assert said.text.startswith("In 5 of 5 arms a direction separates refused from answered harmful instructions; 0 hardly")


def test_tables_of_the_page():
    summary, completions = make_run(n=3)
    found = results([False] * 5 + [True] * 5)
    view = ReportView.of(summary.model_copy(update={"harmfulness": tuple(found)}), completions)
    tables = {table.name: table for made in made_sections(view)[0] for table in made.tables}
    assert list(tables["harmfulness"].readable["Direction at"]) == ["instruction's last token", "prompt's last token"]
    assert len(tables["harmfulness"].data) == 2 * 3
    assert list(tables["harm-by-set"].readable["Instructions"]) == ["harmful", "harmless", "lookalike"]
    assert list(tables["harm-question"].readable["No edit"]) == ["90 %", "20 %", "90 %"]
