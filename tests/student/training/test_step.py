"""One step is the same however its images are spread over micro-batches and workers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import multiprocessing

from manifests.errors import InputError, JobError
from student.config import TrainConfig
from student.data.order import World
from student.training.optimizer import build_optimizer
from student.training.step import StepOutcome, Stepper
from student.training.taught import TaughtNetwork
from tests.student.training.tiny import SumLoss, TinyNetwork, batch, network

CONFIG = TrainConfig(
    steps=10, learning_rate=0.01, warmup_steps=0, schedule="constant", clip_norm=0.5,
    precision="float32",
)  # fmt: skip


def _steps(
    net: TinyNetwork,
    spread: Sequence[Sequence[int]],
    folder: Path,
    *,
    config: TrainConfig = CONFIG,
    world: World = World(),
    num_steps: int = 3,
) -> StepOutcome:
    """Steps on the micro-batches of these images; the last one's outcome."""
    stepper = Stepper(
        TaughtNetwork(net, SumLoss(), config), build_optimizer(net, config), config,
        world=world, device=torch.device("cpu"), run_folder=folder,
    )  # fmt: skip
    return [stepper.take(step, [batch(part) for part in spread]) for step in range(num_steps)][-1]


def _check_same(one: TinyNetwork, other: TinyNetwork) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], msg=name)


def test_micro_batches_do_not_change_a_step(tmp_path: Path) -> None:
    whole, parts = network(), network()
    once = _steps(whole, [range(6)], tmp_path)
    split = _steps(parts, [[0, 1], [2, 3, 4], [5]], tmp_path)
    _check_same(whole, parts)
    assert split.loss == pytest.approx(once.loss)
    assert split.gradient_norm == pytest.approx(once.gradient_norm)
    assert split.parts == pytest.approx(once.parts)
    assert split.num_targets == once.num_targets == 6
    assert split.image_ids == tuple(f"image-{number}" for number in range(6))


@pytest.mark.parametrize(
    "spread",
    [
        [[[2, 4], [0, 6]], [[1, 5], [7, 3]]],
        [[[0], [3]], [[6], [1]]],  # one target for both workers
    ],
)
def test_workers_do_not_change_a_step(tmp_path: Path, spread: list[list[list[int]]]) -> None:
    """Also where a worker's last micro-batch has no targets, and so leaves weights unused."""
    alone = network()
    images = sorted(number for worker in spread for part in worker for number in part)
    once = _steps(alone, [images], tmp_path)
    # Forked: to import torch twice more takes longer than the rest of the file.
    multiprocessing.start_processes(_worker, (str(tmp_path), spread), nprocs=2, start_method="fork")
    for rank in range(2):
        found = torch.load(tmp_path / f"rank-{rank}", weights_only=True)
        assert found["loss"] == pytest.approx(once.loss)
        assert found["norm"] == pytest.approx(once.gradient_norm)
        assert found["num_targets"] == once.num_targets
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(value, found["weights"][name], msg=name)


def _worker(rank: int, folder: str, spread: list[list[list[int]]]) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    net = network()
    last = _steps(net, spread[rank], Path(folder), world=World(rank=rank, size=2))
    found = {"loss": last.loss, "norm": last.gradient_norm, "num_targets": last.num_targets}
    torch.save({**found, "weights": net.state_dict()}, f"{folder}/rank-{rank}")
    dist.destroy_process_group()


def test_the_gradient_is_clipped(tmp_path: Path) -> None:
    """With plain descent a step is as long as the clipped gradient."""
    net = network()
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    config = replace(CONFIG, clip_norm=0.01)
    taught = TaughtNetwork(net, SumLoss(), config)
    optimizer = torch.optim.SGD([{"params": list(net.parameters()), "factor": 1.0}], lr=1.0)
    stepper = Stepper(
        taught, optimizer, config, world=World(), device=torch.device("cpu"), run_folder=tmp_path
    )
    outcome = stepper.take(0, [batch(range(6))])
    moved = sum(((value - before[name]) ** 2).sum() for name, value in net.named_parameters())
    assert outcome.gradient_norm > 0.05
    assert float(moved.detach().sqrt()) == pytest.approx(0.01 * CONFIG.learning_rate, rel=1e-3)


def test_no_targets_at_all_is_a_step_that_teaches_nothing(tmp_path: Path) -> None:
    outcome = _steps(network(), [[0, 3]], tmp_path)
    assert (outcome.num_targets, outcome.loss) == (0, 0)
    with pytest.raises(InputError, match="expected a batch for each worker, got none"):
        _steps(network(), [], tmp_path)


def test_dropout_depends_on_the_step_alone(tmp_path: Path) -> None:
    """So a resumed run draws what the uninterrupted one would have drawn."""
    found = []
    for noise in (1, 2):
        net = network()
        net.dropout.p = 0.5
        torch.manual_seed(noise)
        _steps(net, [range(6)], tmp_path)
        found.append(net)
    _check_same(*found)


def test_bfloat16_runs_the_network_low_and_keeps_weights_high(tmp_path: Path) -> None:
    low, high = network(), network()
    one = _steps(low, [range(6)], tmp_path, config=replace(CONFIG, precision="bfloat16"))
    other = _steps(high, [range(6)], tmp_path)
    assert low.head.weight.dtype == torch.float32
    assert one.loss != other.loss
    assert one.loss == pytest.approx(other.loss, rel=0.05)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_saves_the_batch(tmp_path: Path, value: float) -> None:
    net = network()
    stepper = Stepper(
        TaughtNetwork(net, SumLoss(), CONFIG), build_optimizer(net, CONFIG), CONFIG,
        world=World(), device=torch.device("cpu"), run_folder=tmp_path,
    )  # fmt: skip
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    good, bad = batch([1, 2]), batch([4, 5], value=value)
    with pytest.raises(JobError, match=r"step 7: .*nan from images image-4, image-5; .*bad-step"):
        stepper.take(7, [good, bad])
    assert all(torch.equal(before[name], weight) for name, weight in net.state_dict().items())
    saved = tmp_path / "bad-step-00000007-worker-0" / "batch-1.safetensors"
    with safe_open(saved, "pt") as file:
        words = json.loads(file.metadata()["batch"])
        torch.testing.assert_close(file.get_tensor("images"), bad.images, equal_nan=True)
        assert torch.equal(file.get_tensor("targets.1.labels"), bad.targets[1].labels)
    assert words == {"image_ids": ["image-4", "image-5"], "names": ["bag", "hat", "shoe"]}


def test_a_gradient_that_is_not_finite_stops_too(tmp_path: Path) -> None:
    """The square root's slope at 0 is infinite although its value is not."""

    class Steep(SumLoss):
        def __call__(self, output, batch, **more):  # type: ignore[no-untyped-def]
            losses = super().__call__(output, batch, **more)
            return replace(losses, total=(losses.total * 0).sqrt())

    net = network()
    stepper = Stepper(
        TaughtNetwork(net, Steep(), CONFIG), build_optimizer(net, CONFIG), CONFIG,
        world=World(), device=torch.device("cpu"), run_folder=tmp_path,
    )  # fmt: skip
    with pytest.raises(JobError, match="got a gradient of norm nan from images image-1"):
        stepper.take(0, [batch([1, 2])])
