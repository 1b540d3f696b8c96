"""Networks whose Python looks at values, made ones whose Python does not."""

from __future__ import annotations

import logging
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distillc.frontend.values.answered import NATURAL, answered
from distillc.frontend.values.module_state import kept_attributes
from distillc.frontend.values.one_by_one import one_by_one
from distillc.frontend.values.places import Line, Place, is_theirs
from distillc.frontend.values.recording import Read, Recording, record, tensor_leaves
from distillc.quiet import quiet_libraries

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settled:
    """What became of a network.

    Attributes:
        module: The network; the same where nothing could be settled.
        open: What depends on the image and chooses what Python does, the first of each line.
    """

    module: nn.Module
    open: tuple[Read, ...]


@torch.no_grad()
@quiet_libraries()
def settle(module: nn.Module, shape: Sequence[int], fixed: Tensor | None = None) -> Settled:
    """Answer what a network's Python asks of values, where one answer does for every image.

    1. What weights and constants make is what it is.
    2. A number of the image stays a tensor, where the network computes the same with it.
    3. A truth that guards a `raise` is what does not raise: the check is left out.
    4. A truth is fixed where some images give the other, and fixing it changes no result: `if
       mask.any()` before work that adds nothing for an empty mask.
    5. With `fixed`, everything else is as it is for that image.

    Where a batch gives something else than its images alone, they run one by one. What is left
    out, and modules that all run, are logged as warnings.

    Args:
        module: A network in eval mode; it is not changed.
        shape: Shape of its input.
        fixed: An image of this shape, float32.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(tuple(shape), generator=generator)
    # Dark, bright and plain ones too, but none of zeros: that hides what is done to it.
    images = [noise, noise / 9, 1 - noise / 9, noise.cumsum(-1) / noise.shape[-1]]
    images[:0] = [] if fixed is None else [fixed]
    with kept_attributes(module), torch.random.fork_rng(devices=[]):
        try:
            return _Settling(module, images).settle(fixed is not None)
        except Exception:  # of code that nobody can watch: its export says what is wrong
            return Settled(module, ())


class _Settling:
    """Finds the answers of one network by running it.

    Args:
        module: The network.
        images: Inputs to try; the first is the one whose answers are kept.
    """

    def __init__(self, module: nn.Module, images: Sequence[Tensor]) -> None:
        self._module = module
        self._images: list[Tensor] = []
        self._wanted: list[list[Tensor]] = []
        for image in images:
            with suppress(Exception):  # a check of the user's code may refuse it
                self._wanted.append(tensor_leaves(module(image.clone())))
                self._images.append(image)
        self._as_tensors = True
        self._as_tensors = bool(self._images) and self._is_right(0, {})

    def settle(self, specialise: bool) -> Settled:
        if not self._images:
            return Settled(self._module, ())
        run = self._run(0, {})
        if not run.reads and not run.rewrote and not run.all_run:
            return Settled(self._module, ())
        fixed: dict[Line, bool] = {}
        tried: set[Place] = set()
        while choices := {each.place for each in run.reads if each.is_choice} - tried:
            tried |= choices  # an answer may lead to further ones
            for place in choices:
                answer = self._answer(place)
                if answer is not None:
                    fixed[place.line] = answer
            run = self._run(0, fixed)
        for place, count in run.all_run.items():
            log.warning("%s: a tensor chooses one of %d modules: all of them run", place, count)
        return self._made(run, fixed, specialise)

    def _answer(self, place: Place) -> bool | None:
        """Return the answer to the truths on a line that is right for all images, None for none."""
        for answer in (True, False):  # rule 3
            if self._is_refused(place, not answer):
                log.warning("%s: this check is left out: %s", place, place.source)
                return answer
        for answer in (True, False):  # rule 4
            given = [
                each.value
                for image in range(len(self._images))
                for each in self._run(image, {}).reads
                if each.place.line == place.line and each.is_choice
            ]
            fixed = {place.line: answer}
            if (not answer) in given and all(
                self._is_right(image, fixed) for image in range(len(self._images))
            ):
                return answer
        return None

    def _is_refused(self, place: Place, answer: bool) -> bool:
        """Whether the code raises an error of its own for an answer, where it was given."""
        try:
            self._run(0, {place.line: answer})
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            last = next(each for each in reversed(frames) if is_theirs(each.filename))
            raised = last is frames[-1] or isinstance(error, AssertionError)  # torch._assert
            return raised and (last.filename, last.name) == (place.line[0], place.function)
        return False

    def _is_right(self, image: int, fixed: Mapping[Line, bool]) -> bool:
        """Whether the network computes the same with these answers."""
        try:
            output = self._run(image, fixed).output
        except Exception:  # the user's code, which got an answer that it never gets
            return False
        return all(
            one.shape == other.shape and torch.allclose(one, other, 0, 0, equal_nan=True)
            for one, other in zip(output, self._wanted[image], strict=True)
        )

    def _run(self, image: int, fixed: Mapping[Line, bool]) -> Recording:
        return record(self._module, self._images[image], self._as_tensors, fixed)

    def _made(self, run: Recording, fixed: Mapping[Line, bool], specialise: bool) -> Settled:
        """Return the network with the answers of a run."""
        answers: dict[tuple[Place, str], list[Any]] = defaultdict(list)
        left: dict[Line, Read] = {}
        for read in run.reads:
            answer = read.value
            if read.chooses and read.place.line not in fixed:
                left.setdefault(read.place.line, read)
                answer = answer if specialise else NATURAL  # rule 5
            answers[read.place, read.function.__name__].append(answer)
        twin = one_by_one(answered(self._module, answers), self._images)
        return Settled(twin, tuple(left.values()))
