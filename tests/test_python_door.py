"""The functions of the library take what people hand them, or say in one sentence what they want."""

from inspect import unwrap

import pandas
import pytest
import torch

import demur
from demur.core.errors import InputError
from demur.directions.direction import from_raw
from demur.inputs.instructions import InstructionSet
from tests.tiny import HARMFUL, HARMLESS
from tests.tiny_study import make_study


@pytest.fixture
def prompt(checkpoint):
    return demur.prompt_format("user-assistant", checkpoint)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("door")
    study = make_study(folder)
    with demur.run(study, folder / "run") as finished:
        yield finished


def user(text, **more):
    return {"role": "user", "content": text, **more}


def direction_of(checkpoint):
    return from_raw(torch.linspace(-1, 1, checkpoint.d_model), name="d", layer=1)


def test_the_name_of_a_format_does_for_a_prompt(checkpoint, prompt):
    name = "user-assistant"
    assert torch.equal(demur.capture(checkpoint, HARMFUL, name), demur.capture(checkpoint, HARMFUL, prompt))
    one, other = (demur.extract_direction(checkpoint, HARMFUL, HARMLESS, form, layer=1) for form in (name, prompt))
    assert torch.equal(one.vector, other.vector)
    assert one.provenance.prompt_digest == other.provenance.prompt_digest == prompt.digest
    assert demur.generate(checkpoint, HARMFUL[:2], name, max_new_tokens=2) == demur.generate(
        checkpoint, HARMFUL[:2], prompt, max_new_tokens=2
    )
    for act in (
        lambda form: demur.refusal_scores(checkpoint, HARMFUL, form, [5]),
        lambda form: torch.tensor([one.mean for one in demur.completion_losses(checkpoint, [("make a cake", " yes")], form)]),
        lambda form: demur.candidate_directions(checkpoint, HARMFUL, HARMLESS, form).harmful,
        lambda form: demur.mean_activations(checkpoint, HARMFUL, form, layers=[1]).mean,
    ):
        assert torch.equal(act(name), act(prompt))
    own = demur.generate(checkpoint, ["make a cake"], "tell me : {instruction}", max_new_tokens=1)[0][0]
    assert own.prompt == "tell me : make a cake"


def test_a_text_that_is_no_format_is_refused(checkpoint):
    with pytest.raises(InputError, match="did you mean 'chatml'"):
        demur.capture(checkpoint, HARMFUL, "chatlm")
    with pytest.raises(InputError, match="the prompt format is a Direction"):
        unwrap(demur.generate)(checkpoint, HARMFUL, direction_of(checkpoint))


@pytest.mark.parametrize(
    "act",
    [
        lambda model: unwrap(demur.capture)(model, HARMFUL, "chatml"),
        lambda model: unwrap(demur.generate)(model, HARMFUL, "chatml"),
        lambda model: unwrap(demur.extract_directions)(model, HARMFUL, HARMLESS, "chatml", layers=[1]),
        lambda model: unwrap(demur.refusal_scores)(model, HARMFUL, "chatml", [1]),
        lambda model: unwrap(demur.text_losses)(model, HARMFUL),
        lambda model: unwrap(demur.project)(model, HARMFUL, "chatml", None),
    ],
)
def test_a_model_without_its_tokenizer_is_no_checkpoint(checkpoint, act):
    with pytest.raises(InputError, match=r"a model without its tokenizer; give demur.wrap\(model, tokenizer\)"):
        act(checkpoint.model)
    with pytest.raises(InputError, match=r"load it first: demur.load_checkpoint\('owner/name'\)"):
        act("owner/name")


def test_messages_with_one_user_turn_are_instructions(checkpoint):
    texts = HARMFUL[:2]
    plain = demur.generate(checkpoint, texts, "user-assistant", max_new_tokens=2)
    conversations = [[user(texts[0])], [user([{"type": "text", "text": texts[1]}])]]
    assert demur.generate(checkpoint, conversations, "user-assistant", max_new_tokens=2) == plain
    assert demur.generate(checkpoint, [user(texts[0])], "user-assistant", max_new_tokens=2) == [plain[0][:1]]
    one, other = (
        demur.extract_direction(checkpoint, harmful, HARMLESS, "user-assistant", layer=1)
        for harmful in (texts, [[user(text)] for text in texts])
    )
    assert one.provenance.harmful == other.provenance.harmful


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            [{"role": "system", "content": "be kind"}, user("make a cake")],
            "system, user; expected exactly one user turn",
        ),
        ([user("make a cake"), user("make a bomb")], "the turns user, user"),
        ([[user("make a cake"), {"role": "assistant", "content": "sure"}]], "the turns user, assistant"),
        ([[user([{"type": "image"}])]], "content is not text"),
        (user("make a cake"), "one dict, not a list of texts"),
        ([["make a cake"]], "expected texts, or conversations"),
        (["make a cake", None], "hold the NoneType"),
        (pandas.DataFrame({"instruction": ["make a cake"]}), "are a table"),
        (InstructionSet("mine", {"test": ("make a cake",)}, "here"), r"load_instructions\(...\).all\(\)"),
        ("make a cake", r"are one text, not a list of texts; give \[text\]"),
        (3, "not a list of texts"),
    ],
)
def test_what_cannot_be_read_as_instructions_is_refused(checkpoint, given, said):
    with pytest.raises(InputError, match=said):
        unwrap(demur.generate)(checkpoint, given, "user-assistant")
    with pytest.raises(InputError, match=said):
        unwrap(demur.extract_directions)(checkpoint, HARMFUL, given, "user-assistant", layers=[1])


def test_a_column_of_a_table_is_a_list(checkpoint):
    column = pandas.Series(HARMFUL[:2], index=[7, 9])
    read = unwrap(demur.capture)(checkpoint, column, "user-assistant")
    assert torch.equal(read, demur.capture(checkpoint, HARMFUL[:2], "user-assistant"))


def test_every_token_is_captured(checkpoint, prompt):
    texts = [HARMFUL[0], "cake", HARMLESS[1]]
    read = demur.capture(checkpoint, texts, prompt, layers=[0, 2], positions="all")
    for text, activations, ids in zip(texts, read, prompt.encode(texts), strict=True):
        assert activations.shape == (len(ids), 2, checkpoint.d_model)
        states = checkpoint.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for row, layer in enumerate((0, 2)):
            torch.testing.assert_close(activations[:, row], states[layer][0].detach(), atol=1e-5, rtol=1e-5)
        alone = demur.capture(checkpoint, [text], prompt, layers=[0, 2])[0]
        torch.testing.assert_close(activations[-1], alone, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match='give positions="all" alone'):
        unwrap(demur.capture)(checkpoint, texts, prompt, positions=[-2, -1])


def test_tokens_are_projected_on_a_direction(checkpoint, prompt):
    direction = direction_of(checkpoint)
    texts = [HARMFUL[0], "cake"]
    found = demur.project(checkpoint, texts, prompt, direction)
    read = demur.capture(checkpoint, texts, prompt, layers=[1], positions="all")
    for one, text, ids, activations in zip(found, texts, prompt.encode(texts), read, strict=True):
        assert (one.instruction, one.token_ids, one.layer, one.site) == (text, tuple(ids), 1, "resid_pre")
        assert one.tokens == tuple(checkpoint.tokenizer.decode([token]) for token in ids)
        torch.testing.assert_close(one.values, activations[:, 0] @ direction.vector, atol=1e-5, rtol=1e-5)
    elsewhere = demur.project(checkpoint, texts, prompt, direction, layer=2, site="resid_post")[1]
    read = demur.capture(checkpoint, texts, prompt, layers=[2], site="resid_post", positions="all")[1]
    torch.testing.assert_close(elsewhere.values, read[:, 0] @ direction.vector, atol=1e-5, rtol=1e-5)
    assert "cake" in found[1]._repr_html_()
    assert "cake" in repr(found[1])
    with pytest.raises(InputError, match="has width 3"):
        demur.project(checkpoint, texts, prompt, from_raw(torch.ones(3), name="small", layer=1))


def test_a_checkpoint_is_steered(checkpoint):
    ids, edit = torch.tensor([[5, 6, 7]]), demur.add(direction_of(checkpoint), 4.0)
    with demur.steer(checkpoint.model, edit):
        wanted = checkpoint.model(ids).logits
    with demur.steer(checkpoint, edit) as model:
        assert model is checkpoint.model
        assert torch.equal(model(ids).logits, wanted)
    assert not torch.equal(checkpoint.model(ids).logits, wanted)
    with pytest.raises(InputError, match="steer was given a str"), demur.steer("owner/name", edit):
        pass


def test_a_function_is_a_judge(checkpoint):
    texts = ["I cannot help", "Sure"]

    def rude(text):
        return text.startswith("I cannot")

    found = demur.judge(texts, rude)
    assert [(one.judge, one.refusal, one.label) for one in found] == [("rude", True, "refusal"), ("rude", False, "other")]
    assert [one.label for one in demur.judge(texts, lambda text: "refusal" if rude(text) else "broken")] == ["refusal", "broken"]
    verdict = demur.Verdict("mine", True, "partial refusal", "cannot")
    assert demur.judge(texts, lambda text: verdict) == [verdict, verdict]
    asked = demur.judge(texts, lambda text, instruction: instruction == "a", instructions=["b", "a"])
    assert [one.refusal for one in asked] == [False, True]
    assert [one.refusal for one in demur.judge(texts, lambda text, limit=9: len(text) > limit)] == [True, False]
    rows = demur.generate(checkpoint, HARMFUL[:2], "user-assistant", max_new_tokens=2)
    assert len(demur.judge(rows[0], lambda text: pandas.Series([True]).to_numpy()[0])) == 2


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda text: None, "answered with a NoneType; expected True"),
        (lambda text: 0.7, "answered with a float"),
        (lambda text: "refused", "may be a refusal or not"),
        (lambda: True, "takes 0 arguments"),
        (lambda a, b, c: True, "takes 3 arguments"),
    ],
)
def test_a_function_with_another_answer_is_refused(function, said):
    with pytest.raises(InputError, match=said):
        demur.judge(["I cannot help"], function)


def test_a_run_gives_its_directions_and_answers(run):
    directions = run.directions()
    assert list(directions) == [facts["name"] for facts in run.summary()["directions"]]
    name, direction = next(iter(directions.items()))
    assert torch.equal(direction.vector, demur.load_direction(run.path / "directions" / f"{name}.safetensors").vector)
    answers = run.answers()
    assert answers["text"].tolist() == [one["text"] for one in run.summary()["answers"]]
    assert list(answers) == ["text", "shown"]


def test_a_run_is_compared_and_exported_by_its_folder(run, tmp_path):
    found = demur.compare(run, run.path)
    assert found.agreement.n == found.agreement.tokens == len(run.completions())
    assert not found.settings
    text = demur.export(run)
    assert text == demur.export(str(run.path), "csv")
    assert demur.export(run, "csv", tmp_path / "rows.csv") == tmp_path / "rows.csv"
    assert (tmp_path / "rows.csv").read_text(encoding="utf-8") == text
    with pytest.raises(InputError, match="did you mean 'csv'"):
        demur.export(run, "cvs")
    assert len(run.cells())  # comparing and exporting leave a run open that was open


def test_a_study_is_planned_by_its_file(run, tmp_path):
    study = make_study(tmp_path)
    outlook = demur.plan(study)
    assert len(outlook.plan.cells) == len(run.cells()["key"].unique())
    assert str(outlook).startswith("tiny\n")
    with pytest.raises(InputError, match="the study is a dict"):
        demur.plan({"name": "tiny"})


def test_a_place_is_selected(tmp_path, monkeypatch):
    study = make_study(tmp_path)
    (tmp_path / "more.toml").write_text(study.read_text())
    with pytest.raises(InputError, match="too few validation instructions"):
        demur.select(study, "separation")
    with pytest.raises(InputError, match="not a criterion; did you mean 'effect'"):
        demur.select(study, "efect")


def test_a_run_uses_loaded_checkpoints(run, tmp_path, monkeypatch):
    study = demur.load_study(run.path / "study.toml")
    given = {name: demur.load_checkpoint(spec.model) for name, spec in study.checkpoints.items()}
    with monkeypatch.context() as patch:
        patch.setattr("demur.runs.executors.in_process.load_named", None)
        with demur.run(study, tmp_path / "given", checkpoints=given) as other:
            columns = ["key", "instruction", "token_ids"]
            assert other.completions()[columns].equals(run.completions()[columns])
            assert {one["fingerprint"] for one in other.summary()["checkpoints"].values()} == {
                one.fingerprint for one in given.values()
            }
    with pytest.raises(InputError, match="which the study does not have; did you mean 'chat'"):
        demur.run(study, tmp_path / "no", checkpoints={"chatt": given["chat"]})
    with pytest.raises(InputError, match=r"give demur.wrap\(model, tokenizer\)"):
        demur.run(study, tmp_path / "no", checkpoints={"chat": given["chat"].model})
    half = demur.load_checkpoint(study.checkpoints["chat"].model, dtype="bfloat16")
    with pytest.raises(InputError, match="'bfloat16'.*and the study has .*'float32'"):
        demur.run(study, tmp_path / "no", checkpoints={"chat": half})
    opened = demur.load_study(run.path / "study.toml", ["direction.layers=select"])
    with pytest.raises(InputError, match="a selection loads its checkpoints itself"):
        demur.run(opened, tmp_path / "no", checkpoints=given)


def test_a_run_does_not_go_on_with_other_loaded_weights(run, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    study = demur.load_study(run.path / "study.toml")
    given = {name: demur.load_checkpoint(spec.model) for name, spec in study.checkpoints.items()}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("demur.runs.execution.generate_batches", interrupted)
        demur.run(study, tmp_path / "run", checkpoints=given)
    with pytest.raises(InputError, match="weights of"):
        demur.run(study, tmp_path / "run", checkpoints={"base": given["chat"], "chat": given["base"]})
    with demur.run(study, tmp_path / "run", checkpoints=given) as again:
        assert len(again.completions()) == len(run.completions())
