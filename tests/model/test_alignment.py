"""InfoNCE against its definition and its laws, and the gathering of views over ranks."""

import math
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional

from cellvim.model.alignment import PROJECTED_WIDTH, Projector, alignment_loss, gather_views

TEMPERATURE = 0.3


def draw_views(pairs: int, *, seed: int = 0, width: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2 * pairs, width, generator=generator, dtype=torch.float64)


def of_pairs(*identities: int) -> Tensor:
    return torch.tensor(identities).repeat_interleave(2)


def defined_loss(views: Tensor, identity: Tensor, temperature: float) -> float:
    """The equation, one view at a time: minus log of the partner's share among all that may be confused with it."""
    terms = []
    for asking in range(len(views)):
        partner = asking ^ 1
        exponentials = {}
        for other in range(len(views)):
            if other % 2 != partner % 2:
                continue
            if other != partner and identity[other] == identity[asking]:
                continue
            cosine = functional.cosine_similarity(views[asking], views[other], dim=0)
            exponentials[other] = math.exp(cosine / temperature)
        terms.append(-math.log(exponentials[partner] / sum(exponentials.values())))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("identities", [(0, 1, 2, 3), (0, 1, 0, 2), (4, 4, 4), (7,)])
def test_loss_is_that_of_the_definition(identities: tuple[int, ...]) -> None:
    views, identity = draw_views(len(identities)), of_pairs(*identities)
    loss = alignment_loss(views, identity, temperature=TEMPERATURE)
    assert loss.item() == pytest.approx(defined_loss(views, identity, TEMPERATURE), rel=1e-12)


def test_gradients_match_finite_differences() -> None:
    views, identity = draw_views(4).requires_grad_(), of_pairs(0, 1, 0, 2)
    assert torch.autograd.gradcheck(lambda v: alignment_loss(v, identity, temperature=TEMPERATURE), (views,))


@pytest.mark.parametrize("pairs", [2, 5])
def test_collapsed_features_give_the_logarithm_of_the_number_of_pairs(pairs: int) -> None:
    views = draw_views(1)[:1].expand(2 * pairs, -1)
    loss = alignment_loss(views, of_pairs(*range(pairs)), temperature=TEMPERATURE)
    assert loss.item() == pytest.approx(math.log(pairs))


def test_the_order_of_pairs_and_of_partners_changes_nothing() -> None:
    views, identity = draw_views(4), of_pairs(0, 1, 0, 2)
    loss = alignment_loss(views, identity, temperature=TEMPERATURE)
    moved = torch.tensor([5, 4, 1, 0, 7, 6, 3, 2])
    again = alignment_loss(views[moved], identity[moved], temperature=TEMPERATURE)
    torch.testing.assert_close(again, loss)


def test_wells_of_one_perturbation_do_not_repel_each_other() -> None:
    views = draw_views(3).requires_grad_()
    alignment_loss(views, of_pairs(0, 0, 0), temperature=TEMPERATURE).backward()
    torch.testing.assert_close(views.grad, torch.zeros_like(views))


def test_half_precision_views_are_compared_in_single_precision() -> None:
    views, identity = draw_views(4).bfloat16(), of_pairs(0, 1, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = alignment_loss(views, identity, temperature=TEMPERATURE)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, alignment_loss(views.float(), identity, temperature=TEMPERATURE))


def test_a_projector_is_a_function_of_its_generator() -> None:
    first, second = (Projector(6, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    features = torch.randn(4, 6, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(first(features), second(features), rtol=0, atol=0)
    assert first(features).shape == (4, PROJECTED_WIDTH)


def test_without_ranks_nothing_is_gathered() -> None:
    views, identity = draw_views(2), of_pairs(0, 1)
    gathered, identities = gather_views(views, identity)
    assert gathered is views
    assert identities is identity


def linear_model() -> nn.Linear:
    model = nn.Linear(5, 3, bias=False, dtype=torch.float64)
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(weight)
    return model


def gradient_of_rank(rank: int, folder: str) -> None:
    """Loss and gradient, averaged over ranks as distributed training does, of the half of the views of a rank."""
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    views, identity, model = draw_views(4), of_pairs(0, 1, 0, 2), linear_model()
    mine = slice(4 * rank, 4 * rank + 4)
    gathered, identities = gather_views(model(views[mine]), identity[mine])
    loss = alignment_loss(gathered, identities, temperature=TEMPERATURE)
    loss.backward()
    gradient = model.weight.grad
    assert gradient is not None
    distributed.all_reduce(gradient)
    torch.save([loss.detach(), gradient / 2], f"{folder}/rank-{rank}")
    distributed.destroy_process_group()


def test_two_ranks_compute_what_one_does() -> None:
    model = linear_model()
    loss = alignment_loss(model(draw_views(4)), of_pairs(0, 1, 0, 2), temperature=TEMPERATURE)
    loss.backward()
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(gradient_of_rank, args=(folder,), nprocs=2)
        for rank in range(2):
            found_loss, gradient = torch.load(Path(folder) / f"rank-{rank}", weights_only=True)
            torch.testing.assert_close(found_loss, loss.detach())
            torch.testing.assert_close(gradient, model.weight.grad)
