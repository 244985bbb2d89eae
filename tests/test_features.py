"""`features`: a planted latent is found and does it, random ones do not, and every number equals a naive loop's."""

import json
from contextlib import closing, contextmanager, nullcontext

import numpy
import pytest
import torch

import demur
from demur.analysis.diff.findings import findings
from demur.core.errors import InputError
from demur.directions.sae.read_autoencoder import read_autoencoder
from demur.directions.sae.sparse_autoencoder import SparseAutoencoder
from demur.engine.generate import generate
from demur.engine.readout.direct_attribution import group_log_odds
from demur.engine.readout.latent_attribution import latent_attribution
from demur.interventions.latents import LatentEdit, clamped_latents, spliced
from demur.measurements.latents.feature_settings import FeatureSettings
from demur.measurements.latents.features import Features
from demur.measurements.latents.latent_numbers import alike_sets, latent_numbers, norm_limit, shuffled_differences
from demur.measurements.measurement import ArmSubject
from demur.models.layouts import point
from demur.runs.diffing.diff_run import diff_study
from demur.runs.measuring.measured_details import diff_details
from demur.runs.rows import StoredMeasurement
from demur.runs.store import Store
from tests.autoencoders import (
    PLANTED,
    planted_checkpoint,
    planted_weights,
    random_weights,
    trained_weights,
    write_gemma_scope,
    write_qwen_scope,
    write_sae_lens,
)
from tests.test_patching import QUICK
from tests.tiny import CHAT, HARMFUL, HARMLESS, tiny_model, tiny_tokenizer
from tests.tiny_study import make_study

SETTINGS = {**QUICK, "clamped": 1, "nearest": 3, "draws": 40, "completions": 2}


def arm(checkpoint, vector):
    prompt = demur.prompt_format("native", checkpoint)
    texts = {"harmful": HARMFUL, "harmless": HARMLESS}
    direction = demur.from_raw(vector, name="own", layer=2)
    return ArmSubject("chat/native", checkpoint, prompt, texts, texts, "resid_pre", -1, (2,), (direction,))


def measured(checkpoint, vector, file, **changes):
    settings = FeatureSettings(**{**SETTINGS, **changes}, saes=({"checkpoint": "chat", "file": str(file)},))
    return Features().measure(arm(checkpoint, vector), settings)


def details_of(record):
    return diff_details([StoredMeasurement("features", "chat/native", "{}", 1, record)])


@pytest.fixture(scope="module")
def planted():
    return planted_checkpoint()


@pytest.fixture(scope="module")
def found(planted, tmp_path_factory):
    checkpoint, vector = planted
    return measured(checkpoint, vector, write_gemma_scope(tmp_path_factory.mktemp("planted"), planted_weights(vector), 1))


@pytest.fixture(scope="module")
def tiny():
    """A checkpoint, the streams of some prompts after its block 1, and a TopK autoencoder that was trained on them."""
    checkpoint = demur.wrap(tiny_model("llama"), tiny_tokenizer(chat_template=CHAT), name="chat")
    prompt = demur.prompt_format("native", checkpoint)
    read = demur.capture(checkpoint, [*HARMFUL, *HARMLESS], prompt, layers=[1], site="resid_post", positions="all")
    streams = [one[:, 0] for one in read]
    return checkpoint, streams, trained_weights(torch.cat([one[1:] for one in streams]), 64, 8)


def test_the_planted_latent_is_the_nearest_and_the_attributed_one(found):
    assert found.facts["chosen_nearest"] == [PLANTED]
    assert found.facts["chosen_attributed"] == [PLANTED]
    assert found.facts["latent"][0] == PLANTED
    assert found.arrays["cosine"][0] == pytest.approx(1, abs=1e-5)
    assert found.arrays["cosine"][0] > found.arrays["null_cosine"].max()
    assert (found.arrays["frequency"][:, 0] == 1).all()


def test_without_it_refusals_are_gone_and_random_latents_do_nothing(found):
    kinds, rates = numpy.array(found.facts["kind"]), found.arrays["probability_harmful"].mean(1)
    alone = rates[kinds == "alone"][0]
    assert alone > 0.05
    nulls = rates[kinds == "random nearest"]
    assert len(nulls) == 20
    for kind in ("nearest", "attributed"):
        assert rates[kinds == kind][0] < alone / 20
        assert numpy.abs(rates[kinds == f"random {kind}"] - alone).max() < alone / 20
    assert found.arrays["set_norm"][kinds == "random nearest"] == pytest.approx(1, abs=1e-5)


def test_the_argument_and_the_details_say_so(found):
    details = details_of(found)
    (result,) = details.features
    planted = result.latents[0]
    assert (planted.latent, planted.chosen, planted.p) == (PLANTED, ("nearest", "attributed"), 1 / 41)
    clamped = next(run for run in result.runs if run.kind == "nearest")
    assert (clamped.nulls, clamped.value, clamped.harmful.p) == (20, 0.0, 1 / 21)
    assert clamped.harmful.change < clamped.harmful.null[0] <= clamped.harmful.null[1]
    assert clamped.frequency is not None
    steps = findings([], details)
    assert [step.subject for step in steps] == ["chat/native"] * 3
    assert steps[0].shown
    assert steps[0].answer.startswith(f"Yes: the decoder row of latent {PLANTED} has a cosine of +1.00")
    # The interval over six instructions decides whether the change counts as shown; the null is beaten in any case.
    assert "20 random sets alike in frequency and norm" in steps[1].evidence
    assert "with the reconstruction in the place of the stream" in steps[1].evidence


def test_broken_text_shows_nothing(found):
    texts = {"whole": ["Yes, of course.", "Here is a plan."] * 4}
    texts["broken"] = texts["whole"][:4] + ["cake cake cake cake cake cake cake cake cake"] * 4
    stored = [type(found)({**found.facts, "written_text": one}, found.arrays) for one in texts.values()]
    before, after = (findings([], details_of(one))[1] for one in stored)
    assert "the text is broken in 100 % more of the completions" in after.evidence
    assert "broken" not in before.evidence
    assert not after.shown


def test_clamping_and_splicing_equal_a_naive_loop(tiny, tmp_path):
    checkpoint, streams, weights = tiny
    sae = read_autoencoder(write_qwen_scope(tmp_path, weights, 1, 8))
    prompt = demur.prompt_format("native", checkpoint)
    edits = {"clamped": clamped_latents(sae, (3, 40), 1.5, layer=1), "spliced": spliced(sae, layer=1)}
    for row, stream in enumerate(streams[:3]):
        expected = {"clamped": [], "spliced": []}
        for x in stream:
            before = x @ weights["W_enc"] + weights["b_enc"]
            kept = set(before.topk(8).indices.tolist())
            f = torch.tensor([max(0.0, float(z)) if j in kept else 0.0 for j, z in enumerate(before)])
            expected["spliced"].append(sum(f[j] * weights["W_dec"][j] for j in range(64)) + weights["b_dec"])
            expected["clamped"].append(x + (1.5 - f[3]) * weights["W_dec"][3] + (1.5 - f[40]) * weights["W_dec"][40])
        ids = torch.tensor([prompt.encode([HARMFUL[row]])[0]])
        for name, edit in edits.items():
            seen = []
            # The next block's input is what the edit left.
            with demur.steer(checkpoint.model, edit):
                hook = checkpoint.model.model.layers[2].input_layernorm.register_forward_pre_hook(
                    lambda _, args, seen=seen: seen.append(args[0].detach().clone())
                )
                with torch.inference_mode():
                    checkpoint.model(input_ids=ids)
                hook.remove()
            torch.testing.assert_close(seen[0][0], torch.stack(expected[name]), atol=1e-4, rtol=1e-4)


def test_massive_positions_are_left_as_they_are():
    weights = random_weights(8, 20)
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    sae = SparseAutoencoder("toy", "sae-lens", *(weights[name] for name in names))
    streams = [torch.cat((50 * torch.ones(1, 8), torch.randn(5, 8, generator=torch.Generator().manual_seed(n)))) for n in (0, 1)]
    limit = norm_limit(streams)
    assert max(float(one[1:].norm(dim=-1).max()) for one in streams) < limit < 50 * 8**0.5
    assert norm_limit([one[1:] for one in streams]) is None
    for edit in (clamped_latents(sae, (1, 2), 4.0, layer=0, most_norm=limit), spliced(sae, layer=0, most_norm=limit)):
        changed = LatentEdit().operation(edit).function(streams[0][None])[0]
        assert torch.equal(changed[0], streams[0][0])
        assert (changed[1:] != streams[0][1:]).any(-1).all()


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_latents_that_keep_their_values_change_no_token(tiny, tmp_path, kind):
    checkpoint, _, weights = tiny
    file = write_qwen_scope(tmp_path, weights, 1, 8) if kind == "topk" else write_gemma_scope(tmp_path, random_weights(32, 64), 1)
    sae = read_autoencoder(file)
    edits = [None, clamped_latents(sae, range(0, 64, 3), None, layer=1), clamped_latents(sae, range(0, 64, 3), 0.0, layer=1)]
    made = generate(checkpoint, [*HARMFUL, *HARMLESS], "native", edits, max_new_tokens=8)
    alone, kept, zeroed = ([one.token_ids for one in each] for each in made)
    assert kept == alone
    assert zeroed != alone


def test_rows_with_different_latents_share_a_batch(tiny, tmp_path):
    checkpoint, _, weights = tiny
    sae = read_autoencoder(write_qwen_scope(tmp_path, weights, 1, 8))
    edits = [None, clamped_latents(sae, (1, 2), 3.0, layer=1), spliced(sae, layer=1), clamped_latents(sae, (5,), -2.0, layer=1)]
    together = generate(checkpoint, HARMFUL, "native", edits, max_new_tokens=6)
    for edit, made in zip(edits, together, strict=True):
        (alone,) = generate(checkpoint, HARMFUL, "native", [edit], max_new_tokens=6)
        assert [one.token_ids for one in made] == [one.token_ids for one in alone]


def test_the_numbers_of_a_trained_autoencoder_are_those_of_a_naive_loop(tiny, tmp_path):
    _, streams, weights = tiny
    sae = read_autoencoder(write_qwen_scope(tmp_path, weights, 1, 8))
    numbers = latent_numbers(sae, streams)
    active, total, left, rows = torch.zeros(64), torch.zeros(64), 0.0, []
    for stream in streams:
        for x in stream[1:]:
            before = x @ weights["W_enc"] + weights["b_enc"]
            f = torch.zeros(64)
            for j in before.topk(8).indices.tolist():
                f[j] = max(0.0, float(before[j]))
            active, total = active + (f > 0), total + f
            left += float((f @ weights["W_dec"] + weights["b_dec"] - x).double().square().sum())
            rows.append(x.double())
    whole = float((torch.stack(rows) - torch.stack(rows).mean(0)).square().sum())
    assert numbers.tokens == len(rows)
    torch.testing.assert_close(numbers.frequency, (active / len(rows)).double())
    torch.testing.assert_close(numbers.mean, (total / len(rows)).double(), atol=1e-5, rtol=1e-4)
    assert numbers.unexplained == pytest.approx(left / whole, rel=1e-4)
    # It was trained with b_dec subtracted from its input, and Qwen-Scope subtracts nothing.
    facts = {"apply_b_dec_to_input": True, "k": 8}
    centred = read_autoencoder(write_sae_lens(tmp_path / "lens", weights, 1, "topk", **facts))
    assert latent_numbers(centred, streams).unexplained < min(0.3, numbers.unexplained)


def test_attributions_add_up_to_what_the_path_changes(tiny, tmp_path):
    checkpoint, _, _ = tiny
    sae = read_autoencoder(write_gemma_scope(tmp_path, random_weights(32, 64), 1))
    prompt, group = demur.prompt_format("native", checkpoint), (7, 9, 11)
    edit = demur.ablate(demur.from_raw(torch.randn(32, generator=torch.Generator().manual_seed(0)), name="d", layer=1))
    prompts = [tuple(ids) for ids in prompt.encode(HARMFUL[:3])]
    found = latent_attribution(checkpoint, prompts, group, sae, point(1, "resid_post"), edit, steps=64)
    for row, text in enumerate(HARMFUL[:3]):
        clean, other = (_stream(checkpoint, prompts[row], one) for one in (None, edit))
        change = sae.encode(other) - sae.encode(clean)
        ends = []
        for share in (0.0, 1.0):
            moved = clean + share * change @ sae.decoder
            moved[0] = clean[0]  # the first token is not counted
            ends.append(float(_odds(checkpoint, prompts[row], moved, group)))
        assert float(found[row].sum()) == pytest.approx(ends[1] - ends[0], abs=0.02), text
        assert abs(ends[1] - ends[0]) > 0.05


def _stream(checkpoint, ids, edit):
    kept = []
    with nullcontext() if edit is None else demur.steer(checkpoint.model, edit), torch.inference_mode():
        # The edit comes first, so that the stream is read after it.
        hook = checkpoint.model.model.layers[2].register_forward_pre_hook(
            lambda _, args, kwargs: kept.append((args[0] if args else kwargs["hidden_states"])[0].clone()), with_kwargs=True
        )
        checkpoint.model(input_ids=torch.tensor([ids]))
        hook.remove()
    return kept[0].clone()


def _odds(checkpoint, ids, stream, group):
    def put(_, args, kwargs):
        if args:
            return (stream[None], *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": stream[None]}

    hook = checkpoint.model.model.layers[2].register_forward_pre_hook(put, with_kwargs=True)
    with torch.inference_mode():
        logits = checkpoint.model(input_ids=torch.tensor([ids])).logits[:, -1]
    hook.remove()
    return group_log_odds(logits, group)[0]


def test_shuffled_labels_give_the_differences_of_means_of_a_naive_loop():
    generator = torch.Generator().manual_seed(4)
    harmful, harmless = torch.randn(5, 3, generator=generator), torch.randn(4, 3, generator=generator)
    found = shuffled_differences(harmful, harmless, draws=6, seed=9)
    rows, shuffles = [*harmful, *harmless], torch.Generator().manual_seed(9)
    for one in found:
        order = torch.randperm(9, generator=shuffles).tolist()
        expected = sum(rows[place] for place in order[:5]) / 5 - sum(rows[place] for place in order[5:]) / 4
        torch.testing.assert_close(one, expected)


def test_random_sets_are_alike_and_never_chosen():
    frequency, norm = torch.linspace(0.001, 0.9, 400), 1 + torch.arange(400) % 2
    chosen = (200, 201, 203)
    sets = alike_sets(chosen, frequency, norm.float(), sets=30, seed=1)
    assert len(set(sets)) > 20
    for one in sets:
        assert len(set(one)) == 3
        assert not set(one) & set(chosen)
        for latent, like in zip(one, chosen, strict=True):
            assert norm[latent] == norm[like]
            assert 0.5 < frequency[latent] / frequency[like] < 2
    assert sets == alike_sets(chosen, frequency, norm.float(), sets=30, seed=1)
    with pytest.raises(InputError, match="leave too few to draw random ones from"):
        alike_sets((0, 1), torch.ones(5), torch.ones(5), sets=2, seed=0)


def test_what_does_not_fit_is_refused_in_one_sentence(planted, tmp_path):
    checkpoint, vector = planted
    narrow = write_gemma_scope(tmp_path / "narrow", random_weights(16, 40), 1)
    with pytest.raises(InputError, match="reads width 16 and writes width 16, but the stream of 'chat' has width 32"):
        measured(checkpoint, vector, narrow)
    deep = write_gemma_scope(tmp_path / "deep", random_weights(32, 40), 9)
    with pytest.raises(InputError, match="is of layer 9, but 'chat' has layers 0 to 3"):
        measured(checkpoint, vector, deep)
    file = write_gemma_scope(tmp_path / "other", random_weights(32, 40), 1)
    settings = FeatureSettings(**SETTINGS, saes=({"checkpoint": "chat", "file": str(file), "layer": 2},))
    with pytest.raises(InputError, match="layer 2 is given .* but its files say resid_post of layer 1"):
        Features().measure(arm(checkpoint, vector), settings)


def test_a_transcoder_is_compared_and_read_at_its_modules_but_not_clamped(planted, tmp_path):
    checkpoint, vector = planted
    points = {"hf_hook_point_in": "model.layers.1.mlp.input", "hf_hook_point_out": "model.layers.1.mlp.output"}
    weights = planted_weights(vector)
    file = write_gemma_scope(tmp_path, weights, 1, **points)
    settings = FeatureSettings(**SETTINGS, saes=({"checkpoint": "chat", "file": str(file), "layer": 1},))
    record = Features().measure(arm(checkpoint, vector), settings)
    (result,) = details_of(record).features
    assert result.latents[0].latent == PLANTED
    assert (result.runs, result.latents[0].attribution) == ((), None)
    assert "not clamped, because it is a transcoder" in findings([], details_of(record))[0].evidence
    left, active, outputs = 0.0, 0, []
    for ids in arm(checkpoint, vector).prompt.encode(HARMFUL[:6]):
        kept = []
        hook = checkpoint.model.model.layers[1].mlp.register_forward_hook(
            lambda _, args, output, kept=kept: kept.append((args[0][0], output[0]))
        )
        with torch.inference_mode():
            checkpoint.model(input_ids=torch.tensor([ids]))
        hook.remove()
        for read, written in list(zip(*kept[0], strict=True))[1:]:
            f = (read @ weights["W_enc"] + weights["b_enc"]).relu()
            active += int(f[PLANTED] > 0)
            left += float((f @ weights["W_dec"] - written).double().square().sum())
            outputs.append(written.double())
    whole = float((torch.stack(outputs) - torch.stack(outputs).mean(0)).square().sum())
    assert result.unexplained[0] == pytest.approx(left / whole, rel=1e-4)
    assert result.latents[0].frequency[0] == pytest.approx(active / len(outputs))


def test_a_transcoder_whose_modules_are_missing_is_refused_or_only_compared(planted, tmp_path):
    checkpoint, vector = planted
    points = {"hf_hook_point_in": "model.layers.1.no_norm.output", "hf_hook_point_out": "model.layers.1.mlp.output"}
    settings = {**SETTINGS, "saes": ({"checkpoint": "chat", "file": "", "layer": 1},)}
    for number, config in enumerate((points, {**points, "affine_connection": True})):
        file = write_gemma_scope(tmp_path / str(number), planted_weights(vector), 1, **config)
        asked = FeatureSettings(**{**settings, "saes": ({**settings["saes"][0], "file": str(file)},)})
        if number == 0:
            with pytest.raises(InputError, match="expects a module at 'no_norm'"):
                Features().measure(arm(checkpoint, vector), asked)
        else:
            (result,) = details_of(Features().measure(arm(checkpoint, vector), asked)).features
            assert (result.unexplained, result.off_stream) == (None, "it has an affine connection, which demur does not compute")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study whose two checkpoints have an autoencoder each, in two formats."""
    folder = tmp_path_factory.mktemp("study")
    given = demur.load_study(make_study(folder))
    saes = [
        {"checkpoint": "base", "file": str(write_gemma_scope(folder / "one", random_weights(32, 40), 1))},
        {"checkpoint": "chat", "file": str(write_qwen_scope(folder / "two", random_weights(32, 40, seed=1), 1, 8))},
    ]
    asked = {"name": "features", **SETTINGS, "instructions": 2, "completions": 1, "clamped": 2, "saes": saes}
    return given.model_validate({**given.model_dump(mode="json"), "measurements": [asked]})


@pytest.fixture(scope="module")
def shown():
    """The total and the sum of what was reported, by phase."""
    return {}


@pytest.fixture(scope="module")
def run(study, shown, tmp_path_factory):
    @contextmanager
    def phases(name, total):
        shown[name] = [total, 0]

        def report(done):
            shown[name][1] += done

        yield report

    return demur.run(study, tmp_path_factory.mktemp("run") / "run", phases=phases)


def test_no_more_is_done_than_progress_counts(run, shown):
    for name in ("directions of base/user-assistant", "directions of chat/native"):
        total, done = shown[name]
        assert total / 3 < done <= total, shown


def test_a_study_measures_both_checkpoints_and_shows_them(study, run):
    summary = run.summary()
    results = summary["diff_details"]["features"]
    assert {one["checkpoint"] for one in results} == {"base", "chat"}
    assert {one["format"] for one in results} == {"gemma-scope", "qwen-scope"}
    cosines = summary["diff_details"]["latent_cosines"]
    assert {(one["first"], one["second"]) for one in cosines} == {("base", "chat")}
    assert {one["chosen"] for one in cosines} == {"nearest", "attributed"}
    assert all(abs(one["cosine"]) <= 1 for one in cosines)
    for name in ("features", "feature-runs", "feature-cosines"):
        assert (run.path / "tables" / f"{name}.csv").is_file()
    assert (run.path / "figures" / "features.svg").is_file()
    with closing(Store.open(run.path)) as store:
        assert store.unmeasured() == []
    assert "features" in json.dumps(summary["measurements"])


def test_diff_keeps_it_and_a_study_must_name_its_own_checkpoints(study):
    kept = diff_study(study)
    assert "features" in [one.name for one in kept.measurements]
    plain = study.model_dump(mode="json")
    plain["measurements"][0]["saes"][0]["checkpoint"] = "chta"
    with pytest.raises(ValueError, match="names the checkpoint 'chta'; did you mean 'chat'"):
        study.model_validate(plain)
    plain["measurements"][0]["saes"][0]["checkpoint"] = "chat"
    with pytest.raises((ValueError, InputError), match="two autoencoders are named for the checkpoint 'chat'"):
        study.model_validate(plain)
    del plain["measurements"][0]["saes"]
    with pytest.raises(ValueError, match="features needs saes"):
        study.model_validate(plain)
