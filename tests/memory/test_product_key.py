"""Product-key memory against the definition over all keys, its options, and errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import silu

from mannlab.checks import check_memory
from mannlab.errors import ConfigError
from mannlab.kernels.product_key import naive
from mannlab.memory.product_key import ProductKeyMemory

SMALL: dict[str, Any] = {"slots": 25, "width": 3, "heads": 2, "knn": 3, "key_width": 4}


def make(**options: Any) -> ProductKeyMemory:
    torch.manual_seed(0)
    return ProductKeyMemory(**{**SMALL, **options}).double()


@pytest.mark.parametrize("query_norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("score", ["softmax", "relu", "none"])
@pytest.mark.parametrize("shared_keys", [True, False])
def test_the_contract(query_norm: str, score: str, shared_keys: bool) -> None:
    check_memory(
        "product_key", **SMALL, query_norm=query_norm, score=score, shared_keys=shared_keys, gate=shared_keys
    )


@pytest.mark.parametrize("score", ["softmax", "relu", "none"])
@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("shared_keys", [True, False])
def test_reads_are_those_of_all_keys(score: str, gate: bool, shared_keys: bool) -> None:
    memory = make(score=score, gate=gate, shared_keys=shared_keys, query_norm="none")
    interface = torch.randn(7, memory.interface_size, dtype=torch.float64)
    reads, _ = memory(interface, memory.init_state(7))
    queries = interface[:, :8].view(7, 2, 2, 2)
    rows, scores = naive.search(queries, memory.keys, 3)
    weights = {"softmax": scores.softmax(-1), "relu": scores.relu(), "none": scores}[score]
    wanted = torch.einsum("thk,thkw->tw", weights, memory.values.weight[rows])
    if gate:
        wanted = wanted * silu(interface[:, 8:])
    torch.testing.assert_close(reads, wanted)


@pytest.mark.parametrize("query_norm", ["batch", "layer", "none"])
def test_gradients_of_everything_agree_with_finite_differences(query_norm: str) -> None:
    memory = make(query_norm=query_norm, gate=True).train()
    interface = torch.randn(4, memory.interface_size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: memory.read(x), (interface,))
    wanted = torch.randn(4, 3, dtype=torch.float64)

    def cost() -> torch.Tensor:
        return (memory.read(interface.detach()) * wanted).sum()

    cost().backward()
    for name, parameter in memory.named_parameters():
        assert parameter.grad is not None, name
        flat, slope = parameter.data.view(-1), parameter.grad.flatten()
        for i in (0, len(flat) // 2, len(flat) - 1):
            old = flat[i].item()
            with torch.no_grad():
                flat[i] = old + 1e-6
                above = cost().item()
                flat[i] = old - 1e-6
                below = cost().item()
                flat[i] = old
            assert slope[i].item() == pytest.approx((above - below) / 2e-6, abs=1e-6), name


def test_padding_does_not_enter_the_statistics() -> None:
    valid = torch.tensor([[1.0, 1, 1, 0], [1, 1, 0, 0]])
    whole = torch.randn(2, 4, 8, dtype=torch.float64)
    found = []
    for rubbish in (whole, torch.where(valid.bool().unsqueeze(-1), whole, 1e3)):
        memory = make().train()
        reads, _ = memory.sequence(rubbish, memory.init_state(2), valid)
        found.append((reads[valid.bool()], memory.norm.mean, memory.norm.variance))  # type: ignore[union-attr]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    memory = make().train()
    real = whole[valid.bool()]
    torch.testing.assert_close(memory.read(real), found[0][0])
    reference = torch.nn.BatchNorm1d(8).double()
    reference(real)
    torch.testing.assert_close(memory.norm.mean, reference.running_mean)  # type: ignore[union-attr]
    torch.testing.assert_close(memory.norm.variance, reference.running_var)  # type: ignore[union-attr]


@pytest.mark.parametrize("real", [0, 1])
def test_a_step_with_nothing_to_average_over_is_finite(real: int) -> None:
    memory = make().train()
    valid = torch.tensor([float(real), 0.0])
    interface = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    reads = memory.read(interface, valid)
    reads.sum().backward()
    assert reads.isfinite().all()
    assert interface.grad is not None
    assert interface.grad.isfinite().all()
    assert torch.equal(memory.norm.mean, torch.zeros(8, dtype=torch.float64))  # type: ignore[union-attr]


def test_usage_is_counted_in_evaluation_alone() -> None:
    memory = make().train()
    memory.begin_evaluation()
    memory.read(torch.randn(5, 8, dtype=torch.float64))
    assert memory.evaluation_metrics() == {}
    assert memory.pictures() == {}
    memory.eval()
    valid = torch.tensor([1.0, 0, 0, 0, 0])
    memory.read(torch.randn(5, 8, dtype=torch.float64), valid)
    found = memory.evaluation_metrics()
    assert 0 < found["used_percent"] <= 100 * 6 / 25
    assert found["dead_slots"] >= 19
    assert list(memory.pictures()) == ["values read"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slots": 1000}, r"961 \(31²\) or 1024 \(32²\)"),
        ({"slots": 0}, "not a square"),
        ({"slots": -4}, "not a square"),
        ({"knn": 6}, r"memory\.knn: 6"),
        ({"knn": 0}, r"memory\.knn: 0"),
        ({"heads": 0}, r"memory\.heads: 0"),
        ({"key_width": 3}, r"memory\.key_width: 3"),
        ({"value_lr": 0.0}, r"memory\.value_lr"),
    ],
)
def test_impossible_sizes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_siblings_share_values_and_nothing_else() -> None:
    assert make().sibling() is None
    memory = make(shared_values=True)
    other = memory.sibling()
    assert other is not None
    assert other.values is memory.values
    assert other.keys is not memory.keys
    assert not torch.equal(other.keys, memory.keys)
