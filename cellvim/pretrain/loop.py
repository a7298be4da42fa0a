"""The training loop. Its own, because exact resume is what it exists for."""

import copy
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from cellvim.config import PretrainSettings
from cellvim.dataset import Batch, CropSource, prefetched_in_parts
from cellvim.errors import NonFiniteLossError
from cellvim.model import name_kernels, weight_decay_groups
from cellvim.pretrain.compute import (
    choose_precision,
    computing_in,
    describe_device,
    explain_compile_failure,
    peak_memory_bytes,
    prepare_model,
)
from cellvim.pretrain.distributed import Ranks
from cellvim.pretrain.interrupt import StopRequest
from cellvim.pretrain.metrics import Metrics
from cellvim.pretrain.objective import Objective
from cellvim.pretrain.schedule import ema_decay, learning_rate
from cellvim.pretrain.state import TrainingState, list_checkpoints, update_ema
from cellvim.pretrain.tensorboard import ScalarLog
from cellvim.progress import progress_bar

logger = logging.getLogger(__name__)

SHOWN_SAMPLES = 12
"""Samples that are named, with their field, when the loss is not finite."""


class Trainer:
    """Take the steps that are left of a run.

    Args:
        settings: The run.
        objective: Freshly initialised, on the device to use; the newest checkpoint, if there is one, replaces it.
        source: Crops of any step.
        identity: Hash of settings and plates; checkpoints of another run are ignored.
        ranks: Processes that share each step.

    Raises:
        UsageError: A step cannot be dealt out evenly, or the device lacks what the engine's settings ask for.
        CompileError: The model shall be compiled and there is no compiler.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        objective: Objective,
        source: CropSource,
        *,
        identity: str,
        ranks: Ranks | None = None,
    ) -> None:
        self.settings = settings
        self.source = source
        self.identity = identity
        self.ranks = ranks or Ranks()
        self.device = next(objective.parameters()).device
        self.folder = settings.out / "checkpoints"
        self.slices = self.ranks.slices(
            settings.batch_size, parts=settings.engine.accumulate, together=source.draws.samples_together
        )
        self.dtype = choose_precision(settings.engine, self.device)
        ema = copy.deepcopy(objective).requires_grad_(requires_grad=False)
        prepare_model(objective, settings.engine, self.device)
        self.state = TrainingState(objective, ema, make_optimizer(objective, settings))
        self.model: nn.Module = objective
        self.seconds = 0.0
        self.seconds_waiting = 0.0
        self.steps_taken = 0

    def run(self) -> None:
        """Go on from the newest checkpoint to the last step.

        Raises:
            NonFiniteLossError: The loss is NaN or infinite; nothing is saved over the last checkpoint.
            FirstRankError: The first rank could not save the state; that one raises what happened.
            InterruptedRunError: Asked to stop, on this rank or another; the state is saved first.
        """
        self._resume()
        self.model = self.ranks.parallel(self.state.model)
        try:
            self._take_steps()
        finally:
            # Before the ranks part: what averages gradients must not be the last to hold their connection, or its
            # destructor, with Python's lock in hand, waits for a thread that waits for the lock.
            self.model = self.state.model

    def _take_steps(self) -> None:
        first, steps = self.state.step, self.settings.steps
        batches = prefetched_in_parts(
            lambda key, pool: self.source.begin(*key, pool),
            ((step, samples) for step in range(first, steps) for samples in self.slices),
            workers=self.settings.engine.workers,
            ahead=2 * len(self.slices),
        )
        with (
            self._open_metrics() as metrics,
            StopRequest() as stop,
            progress_bar("pretrain", total=steps, is_shown=self.ranks.is_first) as advance,
        ):
            advance(first)
            for step in range(first, steps):
                started = time.perf_counter()
                self._take_step(batches, metrics)
                self.seconds += time.perf_counter() - started
                advance()
                is_stopping = self.ranks.any(flag=stop.is_requested)
                self._save_and_log(step, metrics, is_stopping=is_stopping)
                if is_stopping and step + 1 < steps:
                    stop.raise_interrupt(f"stopped after step {step + 1} of {steps}")

    def _resume(self) -> None:
        step = self.ranks.lead(lambda: {"step": self.state.load_newest(self.folder, identity=self.identity)})
        if step["step"] != self.state.step:
            self.state.load_step(self.folder, step["step"], identity=self.identity)
        if self.state.step:
            logger.info("resuming at step %d of %d", self.state.step, self.settings.steps)

    def _take_step(self, batches: Iterator[Batch], metrics: Metrics) -> None:
        settings, state = self.settings, self.state
        rate = learning_rate(
            settings.optimizer, step=state.step, steps=settings.steps, batch_size=settings.batch_size
        )
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad(set_to_none=True)
        parts = self._compute_gradients(batches)
        losses = self._mean_over_slices(parts)
        norm = clip_grad_norm_(state.model.parameters(), settings.optimizer.clip_norm).item()
        if not (math.isfinite(losses["loss"]) and math.isfinite(norm)):
            bad = self.ranks.flagged(self.slices, [not math.isfinite(loss) for loss in parts["loss"]])
            found = f"at step {state.step} the loss is {losses['loss']} and the norm of its gradient {norm}"
            raise explain_non_finite(found, self.source, state.step, bad, self.folder)
        state.optimizer.step()
        update_ema(state.ema, state.model, ema_decay(settings.optimizer, step=state.step))
        metrics.write({"step": state.step, **losses, "gradient_norm": norm, "learning_rate": rate})
        state.step += 1
        self.steps_taken += 1

    def _compute_gradients(self, batches: Iterator[Batch]) -> dict[str, list[float]]:
        """Go through this rank's slices of a step; return the losses of each."""
        names: tuple[str, ...] = ()
        values: list[Tensor] = []
        for part in range(len(self.slices)):
            batch = self._next(batches).to(self.device)
            is_last = part + 1 == len(self.slices)
            with self._gradients_stay_here() if not is_last else nullcontext(), explain_compile_failure():
                with computing_in(self.dtype, self.device):
                    losses: dict[str, Tensor] = self.model(batch)
                (losses["loss"] / len(self.slices)).backward()
            names = tuple(losses)
            values.append(torch.stack([value.detach().double() for value in losses.values()]))
        return dict(zip(names, torch.stack(values, dim=1).tolist(), strict=True))

    def _mean_over_slices(self, parts: dict[str, list[float]]) -> dict[str, float]:
        """Losses of the whole step, over parts and ranks: not finite, on every rank, if those of any slice are not."""
        own = torch.tensor(list(parts.values()), dtype=torch.float64).mean(dim=1).tolist()
        return dict(zip(parts, self.ranks.mean(own), strict=True))

    def _gradients_stay_here(self) -> AbstractContextManager[None]:
        """Do not average over ranks what the next slice is added to."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) else nullcontext()

    def _next(self, batches: Iterator[Batch]) -> Batch:
        started = time.perf_counter()
        batch = next(batches)
        self.seconds_waiting += time.perf_counter() - started
        return batch

    def _save_and_log(self, step: int, metrics: Metrics, *, is_stopping: bool) -> None:
        settings, done = self.settings, step + 1
        is_last = done == settings.steps
        if done % settings.checkpoint_every == 0 or is_last or is_stopping:
            self.ranks.lead(lambda: self._save(metrics))
        if done % settings.log_every == 0 or is_last:
            metrics.flush()
            logger.info(
                "step %d/%d  %.1f crops/s  waiting for data %.0f %%",
                done,
                settings.steps,
                self.crops_per_second or 0.0,
                100 * (self.data_wait_share or 0.0),
            )

    def _save(self, metrics: Metrics) -> dict[str, Any]:
        metrics.secure()
        return {"checkpoint": self.state.save(self.folder, identity=self.identity).name}

    def _open_metrics(self) -> Metrics:
        settings, first = self.settings, self.state.step
        if not self.ranks.is_first:
            return Metrics(None, first=first)
        scalars = ScalarLog(settings.out, first=first) if settings.engine.is_logged_to_tensorboard else None
        return Metrics(settings.out / "metrics.jsonl", first=first, scalars=scalars)

    @property
    def crops_per_second(self) -> float | None:
        """Of all ranks together."""
        return self.steps_taken * self.settings.batch_size / self.seconds if self.seconds else None

    @property
    def computes_with(self) -> dict[str, Any]:
        """What the last bits of a step depend on, besides the number of threads."""
        return {
            "device": describe_device(self.device),
            "kernels": name_kernels(self.device, self.settings.model.state_size),
            "precision": str(self.dtype).removeprefix("torch."),
            "ranks": self.ranks.size,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """How the steps of this process were computed, and how fast."""
        return {
            **self.computes_with,
            "crops_per_second": self.crops_per_second,
            "data_wait_share": self.data_wait_share,
            "peak_memory_bytes": peak_memory_bytes(self.device),
        }

    @property
    def data_wait_share(self) -> float | None:
        """Share of the time in which the model waited for crops."""
        return self.seconds_waiting / self.seconds if self.seconds else None


def make_optimizer(objective: Objective, settings: PretrainSettings) -> AdamW:
    """AdamW whose weight decay spares what must not shrink."""
    decayed, spared = weight_decay_groups(objective)
    return AdamW(
        [
            {"params": decayed, "weight_decay": settings.optimizer.weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ],
        lr=0.0,
        betas=(settings.optimizer.beta1, settings.optimizer.beta2),
    )


def explain_non_finite(
    found: str, source: CropSource, step: int, slices: Sequence[range], folder: Path
) -> NonFiniteLossError:
    """Say which samples a loss that is not finite came from, what is kept, and how to go on.

    Args:
        found: What is not finite.
        source: Crops of the step.
        step: Which one.
        slices: Samples whose loss is not finite; none if only the gradient is.
        folder: Of the checkpoints.
    """
    size = source.batch_size
    samples = [sample for part in slices for sample in part] or list(range(size))
    spans = ", ".join(f"{part.start} to {part.stop - 1}" for part in slices)
    where = f"samples {spans}" if len(samples) < size else "all samples"
    kept = list_checkpoints(folder)
    state = f"the last good checkpoint is kept: {kept[-1]}" if kept else "no checkpoint had been written yet"
    hint = (
        f"{state}; the same command would come to the same step again: start over with a lower "
        "optimizer.base_learning_rate and another --out, which keeps this run, or --overwrite, which deletes it"
    )
    error = NonFiniteLossError(f"{found}, from {where} of the {size} in the batch", hint=hint)
    shown = samples[:SHOWN_SAMPLES]
    fields = source.name_fields(step, shown)
    named = [f"sample {sample}: {field}" for sample, field in zip(shown, fields, strict=True)]
    rest = len(samples) - len(named)
    error.details = (*named, f"... and {rest} more") if rest else tuple(named)
    return error
