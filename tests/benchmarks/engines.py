"""One engine running one network, in a process of its own.

    python -m tests.benchmarks.engines KIND PATH SHAPE THREADS [OUTPUT]

Loads PATH, runs it once on `random_input`, saves the output as OUTPUT (.npy) if that is given, and
prints `ready` with a JSON object: seconds until then, and the memory the first run added. Then it
runs as often as each line on stdin says and prints the milliseconds of every run as a JSON list.

Every engine has its own settings for speed: float32 throughout, buffers that are not copied, and
nothing else that is switched off.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

Run = Callable[[], Any]
"""Runs the network once and returns the output in the engine's own type."""


def random_input(shape: tuple[int, ...]) -> np.ndarray:
    """Return the input every engine gets, float32 uniform in [0, 1)."""
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def load_distillc(path: Path, x: np.ndarray, threads: int) -> Run:
    from tests.c_api import Library

    library = Library(path, threads)
    return lambda: library.run(x)


def load_tvm_vm(path: Path, x: np.ndarray, threads: int) -> Run:
    """The kernels of `distillc`, called by TVM's virtual machine on TVM's threads."""
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    image = tvm.runtime.tensor(x)
    return lambda: machine["main"](image)


def load_onnxruntime(path: Path, x: np.ndarray, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, x)
    binding.bind_output(session.get_outputs()[0].name)

    def run() -> Any:
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    return run


def load_openvino(path: Path, x: np.ndarray, threads: int) -> Run:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

    def run() -> np.ndarray:
        request.infer()
        return request.get_output_tensor().data

    return run


def load_ncnn(path: Path, x: np.ndarray, threads: int) -> Run:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise RuntimeError(f"ncnn cannot load {path}")

    def run() -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(x[0]))
        failed, output = extractor.extract("out0")
        if failed:
            raise RuntimeError(f"ncnn returned {failed}")
        return np.array(output)[None]

    return run


def load_torch(path: Path, x: np.ndarray, threads: int) -> Run:
    return _load_torch(path, x, threads)


def load_torch_channels_last(path: Path, x: np.ndarray, threads: int) -> Run:
    return _load_torch(path, x, threads, channels_last=True)


def load_torch_compile(path: Path, x: np.ndarray, threads: int) -> Run:
    return _load_torch(path, x, threads, compiled=True)


def _load_torch(
    path: Path, x: np.ndarray, threads: int, channels_last: bool = False, compiled: bool = False
) -> Run:
    import torch

    torch.set_num_threads(threads)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    module = torch.load(path, weights_only=False).to(memory_format=layout)
    image = torch.from_numpy(x).contiguous(memory_format=layout)
    forward = torch.compile(module) if compiled else module

    def run() -> Any:
        with torch.inference_mode():
            return forward(image)

    return run


ENGINES: dict[str, Callable[[Path, np.ndarray, int], Run]] = {
    "distillc": load_distillc,
    "tvm-vm": load_tvm_vm,
    "onnxruntime": load_onnxruntime,
    "openvino": load_openvino,
    "torch": load_torch,
    "torch-channels-last": load_torch_channels_last,
    "torch-compile": load_torch_compile,
    "ncnn": load_ncnn,
}


def resident_bytes(peak: bool = False) -> int:
    """Return this process's resident memory, or its highest value since `reset_peak`."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def reset_peak() -> None:
    """Let the peak of resident memory start from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def serve(arguments: list[str], commands: TextIO, answers: TextIO) -> None:
    """Load, run once, then run on command; see the module's docstring."""
    kind, path, shape, threads, *output = arguments
    x = random_input(tuple(map(int, shape.split("x"))))
    start = time.perf_counter()
    run = ENGINES[kind](Path(path), x, int(threads))
    reset_peak()
    before = resident_bytes()
    result = run()
    ready = {
        "load_s": round(time.perf_counter() - start, 3),
        "peak_bytes": resident_bytes(peak=True) - before,
    }
    if output:
        np.save(output[0], result.numpy() if hasattr(result, "numpy") else result)
    del result
    print("ready", json.dumps(ready), file=answers, flush=True)
    for line in commands:
        ms = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            run()
            ms.append((time.perf_counter() - begin) * 1e3)
        print(json.dumps(ms), file=answers, flush=True)


if __name__ == "__main__":
    # Engines print what they like: answers get a channel of their own.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.argv[1:], sys.stdin, channel)
