"""An edit is a module: it computes what it says, leaves its base alone, and can be switched off."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.models import EDITS, Affine, Edited, LowRank, append_after, build, edit, edits, unedited
from tests.models.conftest import SmallNet

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(
    n=st.integers(1, 3),
    d=st.integers(1, 5),
    k=st.integers(0, 3),
    h=st.integers(1, 3),
    w=st.integers(1, 3),
    seed=st.integers(0, 9),
)
@settings(max_examples=25, deadline=None)
def test_both_edits_follow_their_formula_at_every_position(n, d, k, h, w, seed):
    x = random(n, d, h, w, seed=seed)
    weight, bias, mean, p, q = (random(*s, seed=seed + 1) for s in ((d, d), (d,), (d,), (d, k), (d, k)))
    affine, low = Affine(d, weight, bias)(x), LowRank(d, k, mean, p, q)(x)
    for i in range(n):
        for row in range(h):
            for column in range(w):
                v = x[i, :, row, column]
                assert torch.allclose(affine[i, :, row, column], weight @ v + bias, atol=1e-4)
                assert torch.allclose(low[i, :, row, column], v - q @ (p.T @ (v - mean)), atol=1e-4)


def test_edits_without_values_change_nothing_and_take_rows_tokens_and_whole_maps():
    for shape in ((4, 6), (4, 5, 6), (4, 6, 1, 1), (4, 6, 2, 3), (4, 3, 1, 2)):
        x = random(*shape)
        assert torch.equal(LowRank(6, 2)(x), x) and torch.allclose(Affine(6)(x), x)
    x, p, q = random(4, 3, 1, 2), random(6, 2, seed=1), random(6, 2, seed=2)
    flat = x.flatten(1)
    assert torch.allclose(LowRank(6, 2, None, p, q)(x), (flat - flat @ p @ q.T).reshape(x.shape), atol=1e-5)
    with pytest.raises(ValueError, match=r"\(4, 7\).*6 features"):
        Affine(6)(random(4, 7))
    with pytest.raises(ValueError, match="down: shape"):
        LowRank(6, 2, down=random(6, 3))


def test_a_low_rank_edit_of_a_large_map_stays_small():
    module = LowRank(25_088, 1, down=random(25_088, 1), up=random(25_088, 1))
    assert sum(buffer.numel() for buffer in module.buffers()) == 3 * 25_088
    assert module(random(2, 512, 7, 7)).shape == (2, 512, 7, 7)


def test_append_after_leaves_the_base_and_can_be_switched_off(hookless):
    base = SmallNet().eval()
    before, logits = copy.deepcopy(base.state_dict()), base(X)
    edited = append_after(base, "body.4", Affine(8, random(8, 8), random(8)))
    assert not torch.allclose(edited(X), logits)
    assert torch.equal(base(X), logits) and not edits(base)
    assert all(torch.equal(before[key], value) for key, value in base.state_dict().items())
    [(name, module)] = edits(edited)
    assert name == "body.4"
    module.enabled = False
    assert torch.equal(edited(X), logits)
    module.enabled = True
    assert not torch.allclose(edited(X), logits)
    assert torch.equal(unedited(edited)(X), logits)
    hookless(edited)


def test_several_edits_are_listed_in_an_order_that_rebuilds_them():
    base = build(seed=2).eval()
    edited = append_after(base, "network.avgpool", LowRank(512, 1, None, random(512, 1), random(512, 1)))
    edited = append_after(edited, "network.avgpool", Affine(512, bias=random(512)))
    edited = append_after(edited, "network.layer1.0", Affine(64, bias=random(64)))
    edited = append_after(edited, "", Affine(2, random(2, 2)))
    assert edited.classes == base.classes and edited.architecture == "resnet18"
    names = [name for name, _ in edits(edited)]
    assert names == ["network.layer1.0", "network.avgpool", "network.avgpool", ""]
    again = base
    for name, module in edits(edited):
        again = append_after(again, name, copy.deepcopy(module))
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(x), edited(x))
    assert not torch.allclose(edited(x), base(x))


def test_a_layer_under_two_names_is_edited_under_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.second = self.first

        def forward(self, x):
            return self.second(self.first(x))

    model = Twice()
    edited = append_after(model, "first", Affine(3, bias=torch.ones(3)))
    x = random(2, 3)
    assert torch.allclose(edited(x), model.first(model.first(x) + 1) + 1)
    assert len(edits(edited)) == 1


class GroupShift(nn.Module):
    needs_group = True

    def forward(self, logits, group):
        return logits + group[:, None]


def test_an_edit_of_the_logits_may_need_the_group_but_not_one_inside():
    base = SmallNet().eval()
    edited = append_after(base, "", GroupShift())
    group = torch.tensor([0, 5])
    assert edited.needs_group
    assert torch.equal(edited(X, group=group), base(X) + group[:, None])
    further = append_after(edited, "", Affine(2))
    assert further.needs_group and torch.allclose(further(X, group=group), edited(X, group=group))
    with pytest.raises(ValueError, match="needs the group"):
        append_after(base, "head", GroupShift())
    with pytest.raises(ValueError, match="Did you mean 'head'"):
        append_after(base, "haed", Affine(2))


def test_registration_refuses_a_taken_name_and_a_class_without_config():
    with pytest.raises(TypeError, match="config"):
        edit(GroupShift)
    with pytest.raises(ValueError, match="registered already"):
        edit(type("Affine", (nn.Module,), {"config": lambda self: {}, "__module__": "elsewhere"}))
    assert EDITS["Affine"] is Affine and Edited not in EDITS.values()
