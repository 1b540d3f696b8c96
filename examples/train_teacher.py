"""Train a Restormer on an image folder; the default checkpoint was made this way.

    python examples/train_teacher.py BSDS500 --test CBSD68 --task denoise:sigma=25 \
        --minutes 85 --out restormer_tiny.pth

A small network of 1.1 M parameters by default. The length is given in steps, or in minutes: about
10,000 steps of 8 patches of 64x64 pixels take 85 minutes on two cores; the last quarter uses larger
patches. Run the same command again after a kill and it goes on where it stopped. The averaged
weights are saved as {"params": ...}, as public Restormer checkpoints have them.
"""

from __future__ import annotations

import argparse
import io
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from distillc.data.images import open_data, open_test_set
from distillc.data.metrics import mean_psnr
from distillc.data.tasks import parse_task
from distillc.errors import UsageError
from distillc.frontend.restormer import Restormer
from distillc.passes.training import (
    WEIGHT_DECAY,
    Average,
    RunState,
    Stateful,
    clip_gradient,
    cosine_rate,
    mixed_precision,
    set_rate,
)
from distillc.stages import Stage
from distillc.workdir import write_whole

LARGE_FROM = 0.75
"""The share of the run after which patches are 1.5 times as large, and half as many."""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of clean images, or of pairs")
    parser.add_argument("--test", type=Path, help="folder PSNR is measured on; else held-out ones")
    parser.add_argument("--task", default="denoise:sigma=25")
    parser.add_argument("--out", type=Path, required=True)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=85)
    length.add_argument("--steps", type=int, help="instead of --minutes; reproducible")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=64, help="pixels, a multiple of 16")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--blocks", type=int, nargs=4, default=(1, 2, 2, 2))
    parser.add_argument("--refinement", type=int, default=1)
    parser.add_argument("--heads", type=int, nargs=4, default=(1, 2, 4, 8))
    parser.add_argument("--report-every", type=int, default=500, help="steps between PSNRs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-on", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(words)


class Spent:
    """Seconds of training so far, as a part of the state that a killed run leaves."""

    seconds = 0.0

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.seconds = state["seconds"]


def save(net: nn.Module, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"params": {name: each.cpu() for name, each in net.state_dict().items()}}, buffer)
    write_whole(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


def main(words: list[str] | None = None) -> None:
    options = arguments(words)
    task = parse_task(options.task)
    if task.scale > 1:
        raise UsageError("Restormer restores at the size it is given", hint="choose another --task")
    data = open_data(options.data, task)
    test = open_test_set(options.test, task) if options.test else data

    torch.manual_seed(options.seed)
    net = Restormer(
        dim=options.dim,
        num_blocks=options.blocks,
        num_refinement_blocks=options.refinement,
        heads=options.heads,
    ).to(options.train_on)
    average = Average(net)
    optimizer = torch.optim.AdamW(net.parameters(), options.lr, weight_decay=WEIGHT_DECAY)
    folder = options.out.with_suffix(".state")
    folder.mkdir(parents=True, exist_ok=True)
    state, spent = RunState(Stage(folder)), Spent()
    parts: dict[str, Stateful] = {
        "net": net,
        "average": average.module,
        "optimizer": optimizer,
        "spent": spent,
    }
    if step := state.load(parts):
        print(f"going on from step {step}", flush=True)

    start = time.monotonic() - spent.seconds
    while True:
        spent.seconds = time.monotonic() - start
        minutes = spent.seconds / 60
        progress = step / options.steps if options.steps else minutes / options.minutes
        if progress >= 1:
            break
        set_rate(optimizer, cosine_rate(progress, options.lr))
        large = progress >= LARGE_FROM
        batch = max(1, options.batch // 2) if large else options.batch
        patch = options.patch * 3 // 2 if large else options.patch
        degraded, clean = (
            each.to(options.train_on) for each in data.batch(step, batch, patch, options.seed)
        )
        with mixed_precision(options.train_on):
            loss = F.l1_loss(net(degraded), clean)
        optimizer.zero_grad()
        loss.backward()
        clip_gradient(net, 0.1 if step > 500 else 1.0)
        optimizer.step()
        average.update(net, step)
        step += 1
        state.save(parts, step)
        if step % options.report_every == 0:
            value = mean_psnr(average.module, test.test_images(8, multiple=8), options.train_on)
            print(f"step {step}: {value:.2f} dB on the first images", flush=True)
            save(average.module, options.out)
    save(average.module, options.out)
    state.clear()
    with suppress(OSError):  # a state that was damaged stays
        folder.rmdir()
    value = mean_psnr(average.module, test.test_images(multiple=8), options.train_on)
    print(f"{options.out}: {step} steps, {value:.3f} dB on {options.test or 'held-out images'}")


if __name__ == "__main__":
    main()
