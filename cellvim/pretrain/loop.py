"""The training loop. Its own, because exact resume is what it exists for."""

import copy
import json
import logging
import math
import time
from typing import TextIO

from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from cellvim.atomic import flush_to_disk, write_bytes
from cellvim.config import PretrainSettings
from cellvim.dataset import Batch, CropSource, prefetched
from cellvim.errors import NonFiniteLossError
from cellvim.model import weight_decay_groups
from cellvim.pretrain.interrupt import StopRequest
from cellvim.pretrain.objective import Objective
from cellvim.pretrain.schedule import ema_decay, learning_rate
from cellvim.pretrain.state import TrainingState, update_ema
from cellvim.progress import progress_bar

logger = logging.getLogger(__name__)


class Trainer:
    """Take the steps that are left of a run.

    Args:
        settings: The run.
        objective: Freshly initialised, on the device to use; the newest checkpoint, if there is one, replaces it.
        source: Crops of any step.
        identity: Hash of settings and plates; checkpoints of another run are ignored.
    """

    def __init__(
        self, settings: PretrainSettings, objective: Objective, source: CropSource, *, identity: str
    ) -> None:
        self.settings = settings
        self.source = source
        self.identity = identity
        self.device = next(objective.parameters()).device
        self.folder = settings.out / "checkpoints"
        decayed, spared = weight_decay_groups(objective)
        optimizer = AdamW(
            [
                {"params": decayed, "weight_decay": settings.optimizer.weight_decay},
                {"params": spared, "weight_decay": 0.0},
            ],
            lr=0.0,
            betas=(settings.optimizer.beta1, settings.optimizer.beta2),
        )
        ema = copy.deepcopy(objective).requires_grad_(requires_grad=False)
        self.state = TrainingState(objective, ema, optimizer)
        self.seconds = 0.0
        self.seconds_waiting = 0.0
        self.steps_taken = 0

    def run(self) -> None:
        """Go on from the newest checkpoint to the last step.

        Raises:
            NonFiniteLossError: The loss is NaN or infinite; nothing is saved over the last checkpoint.
            InterruptedRunError: Asked to stop; the state is saved first.
        """
        self.state.load_newest(self.folder, identity=self.identity)
        first, steps = self.state.step, self.settings.steps
        if first:
            logger.info("resuming at step %d of %d", first, steps)
        batches = prefetched(self.source.batch, range(first, steps))
        with (
            self._open_metrics(first) as metrics,
            StopRequest() as stop,
            progress_bar("pretrain", total=steps) as advance,
        ):
            advance(first)
            for step in range(first, steps):
                started = time.perf_counter()
                batch = next(batches)
                self.seconds_waiting += time.perf_counter() - started
                self._take_step(batch, metrics)
                self.seconds += time.perf_counter() - started
                advance()
                self._save_and_log(step, metrics, is_stopping=stop.is_requested)
                if stop.is_requested and step + 1 < steps:
                    stop.raise_interrupt(f"stopped after step {step + 1} of {steps}")

    def _take_step(self, batch: Batch, metrics: TextIO) -> None:
        settings, state = self.settings, self.state
        rate = learning_rate(
            settings.optimizer, step=state.step, steps=settings.steps, batch_size=settings.batch_size
        )
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        losses = state.model(batch.to(self.device))
        state.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        loss = losses["loss"].item()
        norm = clip_grad_norm_(state.model.parameters(), settings.optimizer.clip_norm).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            found = f"at step {state.step} the loss is {loss} and the norm of its gradient {norm}"
            hint = f"the last good checkpoint is kept in {self.folder}; lower optimizer.base_learning_rate"
            raise NonFiniteLossError(found, hint=hint)
        state.optimizer.step()
        update_ema(state.ema, state.model, ema_decay(settings.optimizer, step=state.step))
        line = {
            "step": state.step,
            **{name: value.item() for name, value in losses.items()},
            "gradient_norm": norm,
            "learning_rate": rate,
        }
        metrics.write(json.dumps(line) + "\n")
        state.step += 1
        self.steps_taken += 1

    def _save_and_log(self, step: int, metrics: TextIO, *, is_stopping: bool) -> None:
        settings, done = self.settings, step + 1
        is_last = done == settings.steps
        if done % settings.checkpoint_every == 0 or is_last or is_stopping:
            metrics.flush()
            flush_to_disk(self.settings.out / "metrics.jsonl")
            self.state.save(self.folder, identity=self.identity)
        if done % settings.log_every == 0 or is_last:
            metrics.flush()
            logger.info(
                "step %d/%d  %.1f crops/s  waiting for data %.0f %%",
                done,
                settings.steps,
                self.crops_per_second or 0.0,
                100 * (self.data_wait_share or 0.0),
            )

    def _open_metrics(self, first: int) -> TextIO:
        """Open `metrics.jsonl` for appending, without the lines of steps that will be taken again."""
        path = self.settings.out / "metrics.jsonl"
        kept = path.read_bytes().splitlines(keepends=True)[:first] if first and path.exists() else []
        write_bytes(path, b"".join(kept))
        return path.open("a", encoding="utf-8")

    @property
    def crops_per_second(self) -> float | None:
        return self.steps_taken * self.settings.batch_size / self.seconds if self.seconds else None

    @property
    def data_wait_share(self) -> float | None:
        """Share of the time in which the model waited for crops."""
        return self.seconds_waiting / self.seconds if self.seconds else None
