"""Batches from a task: the same for any number of workers, any rank and any resume."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from mannlab.contracts import Batch, Split, Task
from mannlab.draws import Draws
from mannlab.errors import require
from mannlab.training.curriculum import Curriculum

# Runs of different seeds are judged on the same samples.
EVALUATION_SEED = 1410_5401

# Key in ``Batch.extra`` of a batch that only keeps the ranks in step and must not be counted.
IGNORED = "_ignored"


def place(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    """A batch on a device, its floats of the weights' type but for those that only the score wants."""
    batch = batch.to(device)
    if dtype == torch.float32:
        return batch
    cast = batch.apply(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
    return replace(cast, extra=batch.extra)


class TrainStream(IterableDataset[Batch]):
    """The endless training stream of one rank.

    At step s of a run, rank r of W takes samples ``start + (s * W + r) * B`` to ``+ B - 1``, so W ranks
    of B see together what one process of W * B sees.

    Args:
        task: where the samples come from.
        seed: the run's seed.
        start: samples that earlier steps have consumed, over all ranks.
        batch_size: B, samples per step and rank.
        rank: r.
        world: W.
        curriculum: sets the largest size of each batch as it is drawn.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        start: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        curriculum: Curriculum | None = None,
    ) -> None:
        self.curriculum = curriculum
        self.task, self.split = task, replace(task.splits("train")[0], lanes=batch_size * world)
        self.draws = Draws(seed, self.split.stream)
        self.start, self.batch_size, self.rank, self.world = start, batch_size, rank, world

    def __iter__(self) -> Iterator[Batch]:
        # The loader asks its workers in turn, so worker w of K must hold steps w, w + K, ...
        worker = get_worker_info()
        step, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        while True:
            first = self.start + (step * self.world + self.rank) * self.batch_size
            split = self.split
            if self.curriculum is not None:
                split = replace(split, ceiling=self.curriculum.at(first))
            yield self.task.batch(split, self.draws, first, self.batch_size)
            step += stride


class EvaluationSet(Dataset[Batch]):
    """One rank's share of a finite split: no sample twice, as many batches on every rank.

    The n samples are cut into C = W * ceil(ceil(n / W) / B) chunks, chunk c from ``c * n // C`` to
    ``(c + 1) * n // C``; each rank takes C / W neighbours. With fewer samples than chunks some chunks
    are empty: they give a sample marked :data:`IGNORED`.

    Of a continuous task a rank takes its share of the lanes instead, all of them at once.
    """

    def __init__(self, task: Task, split: Split, batch_size: int, rank: int = 0, world: int = 1) -> None:
        if split.samples is None or split.samples < 1:
            raise ValueError(f"split '{split.stream}' needs a number of samples, not {split.samples}")
        self.task, self.split, self.samples = task, split, split.samples
        self.draws = Draws(EVALUATION_SEED, split.stream)
        self.per_rank = math.ceil(math.ceil(self.samples / world) / batch_size)
        self.rank, self.world, self.chunks = rank, world, self.per_rank * world
        if task.continuous:
            self.per_rank = self.samples // split.lanes

    def __len__(self) -> int:
        return self.per_rank

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < self.per_rank:
            raise IndexError(index)
        first, count = self._share(index)
        if count:
            return self.task.batch(self.split, self.draws, first, count)
        batch = self.task.batch(self.split, self.draws, 0, 1)
        return replace(batch, extra={**batch.extra, IGNORED: torch.ones(1)})

    def _share(self, index: int) -> tuple[int, int]:
        """First sample and number of samples of a batch."""
        if self.task.continuous:
            lanes = self.split.lanes
            lane = self.rank * lanes // self.world
            return index * lanes + lane, (self.rank + 1) * lanes // self.world - lane
        chunk = self.rank * self.per_rank + index
        first = chunk * self.samples // self.chunks
        return first, (chunk + 1) * self.samples // self.chunks - first


class StreamData(LightningDataModule):
    """A task's data for the trainer; ``consumed`` is all the state that a resume needs.

    Args:
        task: where the samples come from.
        seed: the run's seed (of the training stream; evaluation has its own).
        batch_size: samples per step and device.
        workers: processes that make training batches ahead; 0 makes them in the training process.
        eval_batch_size: samples per evaluation batch and device; None: as in training.

    Attributes:
        consumed: training samples used by finished optimizer steps, over all ranks.
        curriculum: the largest size of training samples, if it grows.

    Raises:
        ConfigError: a curriculum for a task without a size, with impossible options, or with workers.
    """

    def __init__(
        self, task: Task, seed: int, batch_size: int, workers: int = 0, eval_batch_size: int | None = None
    ) -> None:
        super().__init__()
        self.task, self.seed, self.batch_size, self.workers = task, seed, batch_size, workers
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.consumed = 0
        self.curriculum = Curriculum(task)
        require(
            self.curriculum.ceiling is None or workers == 0,
            f"workers: {workers} is not allowed with task.curriculum.",
            "Use workers=0: what is drawn next depends on what was just learnt.",
        )

    @property
    def rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def world(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    def prepare_data(self) -> None:
        self.task.prepare()

    def setup(self, stage: str) -> None:
        # The first rank has fetched what there is to fetch; the others read it here.
        self.task.prepare()

    def train_dataloader(self) -> Any:
        stream = TrainStream(
            self.task, self.seed, self.consumed, self.batch_size, self.rank, self.world, self.curriculum
        )
        return self._loader(stream, self.workers)

    def val_dataloader(self) -> Any:
        return self._evaluation("val")

    def test_dataloader(self) -> Any:
        return self._evaluation("test")

    def _evaluation(self, stage: str) -> list[Any]:
        return [
            self._loader(EvaluationSet(self.task, split, self.eval_batch_size, self.rank, self.world), 0)
            for split in self.task.splits(stage)
        ]

    def _loader(self, dataset: Dataset[Batch], workers: int) -> Any:
        return DataLoader(
            dataset,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            # A loader draws a seed whenever it starts: from here, or dropout would depend on it.
            generator=torch.Generator(),
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        model = self.trainer.lightning_module if self.trainer else None
        return place(batch, device, torch.float32 if model is None else next(model.parameters()).dtype)

    def first(self, split: Split, count: int = 1) -> Batch:
        """The first samples of an evaluation split, as many as it has at most."""
        few = min(count, split.samples or count)
        return self.task.batch(split, Draws(EVALUATION_SEED, split.stream), 0, few)

    def state_dict(self) -> dict[str, Any]:
        if self.curriculum.ceiling is None:
            return {"consumed": self.consumed}
        return {"consumed": self.consumed, "curriculum": self.curriculum.state_dict(self.trainer)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.consumed = int(state_dict["consumed"])
        state = state_dict.get("curriculum", {})
        self.curriculum.load_state_dict(state, self.consumed, self.rank, self.world)
