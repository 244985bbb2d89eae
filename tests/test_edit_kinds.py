"""Kinds of edits from outside demur: any rank, functions of positions, and rows of different kinds in one batch."""

from typing import ClassVar

import pytest
import torch
from pydantic import BaseModel, ConfigDict

import demur
from demur.core.errors import InputError, WorkError
from demur.core.registry import registry
from demur.directions.direction import from_raw
from demur.interventions.ablate import Ablate
from demur.interventions.add import Add
from demur.interventions.edit_kind import EditKind
from demur.interventions.edit_table import tabulate
from demur.interventions.intervention import ablate, add, edit
from demur.interventions.operation import LowRank, Pointwise
from demur.models.layouts import Layout, Point
from tests.tiny import HARMFUL

LAYOUT, WIDTH = Layout("llama", "model.layers", "self_attn", "mlp"), 16


def direction(seed=0, layer=1, width=WIDTH):
    return from_raw(torch.randn(width, generator=torch.Generator().manual_seed(seed)), name=f"d{seed}", layer=layer)


def basis(k, width=WIDTH):
    """k orthonormal rows."""
    return torch.linalg.qr(torch.randn(width, k, generator=torch.Generator().manual_seed(k))).Q.T.contiguous()


class RankSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = 2
    width: int = WIDTH


class RemovePlane(Ablate):
    """Removes k components at once."""

    name: ClassVar[str] = "remove-plane"
    artefact: ClassVar = "none"
    settings: ClassVar = RankSettings

    def operation(self, edit):
        return LowRank(read=basis(edit.settings.rank, edit.settings.width))


class SetTo(Add):
    """Sets the component along a direction to the coefficient: x' = x - (x.r) r + c r."""

    name: ClassVar[str] = "set-to"

    def operation(self, edit):
        return LowRank(read=edit.unit_vector()[None], offset=edit.scaled_vector())


class Turn(Ablate):
    """Writes along another direction than it reads."""

    name: ClassVar[str] = "turn"

    def operation(self, edit):
        return LowRank(read=edit.unit_vector()[None], write=edit.unit_vector().roll(1)[None])


class Trim(Ablate):
    """A function of single positions."""

    name: ClassVar[str] = "trim"
    artefact: ClassVar = "none"

    def operation(self, edit):
        return Pointwise(lambda stream: stream.clamp(-0.5, 0.5))


class Wrong(Trim):
    def operation(self, edit):
        return Pointwise(lambda stream: stream[..., :1])


class Narrow(Trim):
    def operation(self, edit):
        return LowRank(read=torch.ones(1, 3))


@pytest.fixture(autouse=True)
def kinds():
    made = {"remove-plane": RemovePlane, "set-to": SetTo, "turn": Turn, "trim": Trim, "wrong": Wrong, "narrow": Narrow}
    for name, kind in made.items():
        demur.register("edit", name, kind)
        assert isinstance(registry("edit").get(name), EditKind)
    yield
    for name in made:
        registry("edit").unregister(name)


def apply(edits, stream, onto=None, generated=None):
    """One point of the stream: the first block's input."""
    onto = stream if onto is None else onto
    table = tabulate(edits, LAYOUT, 3, stream.shape[-1], "cpu")
    steps = table[Point(1, "resid_pre")]
    for index, step in enumerate(steps, start=1):
        changed = step.apply(stream, onto, generated)
        if index < len(steps):
            stream = changed if onto is stream else stream + (changed - onto)
        onto = changed
    return onto


def stream(rows=1, seed=9):
    return torch.randn(rows, 4, WIDTH, generator=torch.Generator().manual_seed(seed))


EDITS = {
    "ablate": lambda: ablate(direction(1)),
    "add": lambda: add(direction(2), 3.0),
    "remove-plane": lambda: edit("remove-plane"),
    "remove-space": lambda: edit("remove-plane", rank=5),
    "set-to": lambda: edit("set-to", direction(3), coefficient=1.5),
    "turn": lambda: edit("turn", direction(4)),
    "trim": lambda: edit("trim"),
}
EXPECTED = {
    "ablate": lambda x: x - (x @ direction(1).vector)[..., None] * direction(1).vector,
    "add": lambda x: x + 3 * direction(2).vector,
    "remove-plane": lambda x: x - x @ basis(2).T @ basis(2),
    "remove-space": lambda x: x - x @ basis(5).T @ basis(5),
    "set-to": lambda x: x - (x @ direction(3).vector)[..., None] * direction(3).vector + 1.5 * direction(3).vector,
    "turn": lambda x: x + (x @ direction(4).vector)[..., None] * direction(4).vector.roll(1),
    "trim": lambda x: x.clamp(-0.5, 0.5),
}


@pytest.mark.parametrize("name", EDITS)
def test_each_kind_does_its_arithmetic(name):
    x, branch = stream(3), stream(3, seed=10)
    assert torch.allclose(apply([EDITS[name]()] * 3, x), EXPECTED[name](x), atol=1e-6)
    # What a branch is about to add gets the change of the stream.
    changed = apply([EDITS[name]()] * 3, x, onto=branch)
    assert torch.allclose(changed - branch, EXPECTED[name](x) - x, atol=1e-6)


def test_rows_of_all_kinds_in_one_batch_are_what_each_is_alone():
    names = [None, *EDITS, None]
    x = stream(len(names))
    together = apply([None if name is None else EDITS[name]() for name in names], x)
    for row, name in enumerate(names):
        one = x[row : row + 1]
        if name is None:
            assert torch.equal(together[row], one[0])
        else:
            assert torch.allclose(together[row], EXPECTED[name](one)[0], atol=1e-6)
            assert torch.equal(together[row], apply([EDITS[name](), None], one.expand(2, -1, -1))[0])


def test_several_edits_act_in_order():
    x, orders = stream(2), [("trim", "set-to", "remove-plane"), ("remove-plane", "trim", "add")]
    together = apply([tuple(EDITS[name]() for name in order) for order in orders], x)
    onto = apply([tuple(EDITS[name]() for name in order) for order in orders], x, onto=x.clone())
    for row, order in enumerate(orders):
        expected = x[row]
        for name in order:
            expected = EXPECTED[name](expected)
        assert torch.allclose(together[row], expected, atol=1e-6)
        assert torch.allclose(onto[row], expected, atol=1e-6)


@pytest.mark.parametrize("name", EDITS)
def test_positions_hold_for_every_kind(name):
    x, generated = stream(3), torch.tensor([False, False, True, True])
    made = EDITS[name]()
    made = [type(made)(**{**vars(made), "positions": positions}) for positions in ("prompt", "generated")]
    found, expected = apply([*made, None], x, generated=generated), EXPECTED[name](x)
    assert torch.allclose(found[0, :2], expected[0, :2], atol=1e-6)
    assert torch.equal(found[0, 2:], x[0, 2:])
    assert torch.allclose(found[1, 2:], expected[1, 2:], atol=1e-6)
    assert torch.equal(found[1, :2], x[1, :2])
    assert torch.equal(found[2], x[2])


def test_functions_of_another_batch_and_of_another_shape_are_refused():
    (step,) = tabulate([edit("trim"), None], LAYOUT, 3, WIDTH, "cpu")[Point(0, "resid_pre")]
    with pytest.raises(WorkError, match="a table of edits for 2 rows was applied to a batch of 3 rows"):
        step.apply(stream(3), stream(3))
    with pytest.raises(WorkError, match="has to keep shape and dtype"):
        apply([edit("wrong")], stream())
    with pytest.raises(InputError, match=r"'narrow' reads, writes and adds tensors of shape \(1, 3\), None, None"):
        apply([edit("narrow")], stream())


def test_bfloat16_is_edited_in_float32():
    x = stream().bfloat16()
    for name in EDITS:
        assert torch.equal(apply([EDITS[name]()], x), EXPECTED[name](x.float()).bfloat16()), name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: edit("ablat", direction()), "no kind of edit 'ablat'; did you mean 'ablate'"),
        (lambda: edit("ablate"), "'ablate' takes a direction; give one"),
        (lambda: edit("trim", direction()), "'trim' takes no direction; leave it out"),
        (lambda: edit("add", direction()), "'add' needs a coefficient; give one"),
        (lambda: edit("ablate", direction(), coefficient=1.0), "'ablate' takes no coefficient; leave it out"),
        (lambda: edit("remove-plane", ranks=3), "no setting 'ranks'; did you mean 'rank'"),
        (lambda: edit("remove-plane", rank="x"), "rank of an edit of kind 'remove-plane': .*integer"),
        (lambda: edit("trim", rank=1), "'trim' has no setting 'rank'"),
        (lambda: demur.Intervention("trim").unit_vector(), "has no direction"),
        (lambda: demur.Intervention("trim").scaled_vector(), "without a direction and a coefficient"),
    ],
)
def test_refusals_say_what_and_what_to_do(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_edits_with_equal_settings_are_equal():
    assert edit("remove-plane", rank=3) == edit("remove-plane", rank=3)
    assert len({edit("remove-plane", rank=3), edit("remove-plane", rank=3), edit("remove-plane")}) == 2


def test_generate_and_steer_take_any_kind(checkpoint):
    prompt = demur.prompt_format("USER {instruction} ASSISTANT :", checkpoint)
    edits = [
        None,
        demur.edit("trim"),
        demur.edit("remove-plane", rank=4, width=32, layers=[1]),
        demur.edit("set-to", direction(5, width=32), coefficient=6.0, positions="generated"),
        demur.ablate(direction(6, width=32)),
    ]
    together = demur.generate(checkpoint, HARMFUL, prompt, edits, max_new_tokens=6)
    for index, one in enumerate(edits):
        assert demur.generate(checkpoint, HARMFUL, prompt, [one], max_new_tokens=6) == [together[index]]
    ids = torch.tensor(prompt.encode(HARMFUL[:1]))
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": list(checkpoint.stop_ids)}
    for index, one in enumerate(edits[1:], start=1):
        with demur.steer(checkpoint.model, one):
            found = checkpoint.model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        assert tuple(found[0, ids.shape[1] :].tolist()) == together[index][0].token_ids
    assert len({row[0].token_ids for row in together}) > 2
