"""Nonsense for every option of every command is refused before any work, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import torch

from distillc.cli import cli
from distillc.cli.common import Checked

Run = Callable[..., tuple[int, str, str]]

NAMES = ("a\0b", "n" * 300, "\udcff", "d/" * 2100)
WHOLE = ("-1", "1.5", "nan", "²", "x", "", "9" * 30, "9" * 5000)
REAL = ("nan", "inf", "-inf", "-1", "1e400", "x", "²", "")
BY_TYPE = {
    "HxW": ("0", "-1", "²", "64x²", "64x0", "1x2x3", "x", "", "64x", "1000000000", "9" * 5000),
    "PATH": NAMES,
    "DEVICE": ("nonsense", "", "HOST", "ssh:", "ssh:-oProxyCommand=x", "ssh:a:b", "host:1", "\0"),
    "TARGET": ("nonsense", "", "\udcff"),
    "NAME=FILE|VALUE": ("x", "", "=1", "a=", "a=rain", "a=NaN", "a=1e400", "a={}", "a=[1,[2]]"),
    "BLOCK=SPEC": ("nonsense", "=", "a=", "=conv"),
    "N": WHOLE,
    **dict.fromkeys(("DB", "X", "MS", "MINUTES", "VALUE"), REAL),
}
TRAINING = ("nonsense", "", "cuda:99", "cuda:²", "cpu:1", "meta", "mps", "cuda:-1")
BY_OPTION = {
    "--train-on": TRAINING,
    "--device of convert": (*TRAINING, "cpu"),
    "--cluster": ("nonsense", "", "local:0", "ray://host"),
    "--precision": ("fp64", "", "\0"),
    "--onnx-scans": ("both", "", "\0"),
    "--task": ("dehaze", "", "denoise:sigma=nan", "denoise:sigma=²", "sr:scale=0", "sr:scale=1e9"),
    "--budget": ("huge", ""),
    "--family": ("scan1", "", "conv:width=²", "conv:width=0", "conv@x", "conv:width=" + "9" * 99),
    "--objective": ("beauty", ""),
    "--print-after": ("nothing",),
    "--stop-after": ("nothing",),
    "--arch-args": ("x", "[1]", "1", "", "{"),
}
LATE = {"--keep", "--arch", "--output", "--weights-key"}
"""What only the network can tell; below."""


def cases() -> Iterator[tuple[str, str | None, str]]:
    """Every command with every option (None: an argument) and every value for it."""
    for name, command in sorted(cli.commands.items()):
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.is_flag:
                continue
            option = parameter.opts[0] if isinstance(parameter, click.Option) else None
            for value in nonsense(name, option, parameter.type):
                yield name, option, value


def nonsense(command: str, option: str | None, kind: click.ParamType) -> tuple[str, ...]:
    if option in LATE:
        return ()
    for key in (f"{option} of {command}", str(option)):
        if key in BY_OPTION:
            return BY_OPTION[key]
    assert isinstance(kind, Checked), f"{command} {option}: what is nonsense for it?"
    return BY_TYPE[kind.name]


def arguments(command: str) -> list[str]:
    required = [each for each in cli.commands[command].params if isinstance(each, click.Argument)]
    return ["missing.pth"] * len(required)


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_nonsense_for_every_option(
    command: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = [(option, value) for name, option, value in cases() if name == command]
    for option, value in mine:
        given = arguments(command)
        words = [option, value, *given] if option else [value, *given[1:]]
        code, out, error = run(command, *words)
        assert code == 2, f"{command} {option} {value[:40]!r}: {code}, {out}{error}"
        assert "Traceback" not in error
        assert "unexpected" not in error
        assert len(error) < 2000
    assert list(tmp_path.iterdir()) == []


def test_the_table_covers_the_options() -> None:
    tried = {(command, option) for command, option, _ in cases()}
    assert len(tried) > 40
    assert {("convert", "--seed"), ("run", "--overlap"), ("tune", "--minutes")} <= tried


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_without_cuda(run: Run, tmp_path: Path) -> None:
    code, _, error = run("convert", tmp_path / "missing.pth", "--train-on", "cuda")
    assert code == 2
    assert "torch sees no CUDA devices" in error
    assert "--train-on cpu" in error


@pytest.mark.parametrize("value", ["cpu", "cuda", "adb"])
def test_the_old_name_of_train_on_answers_with_the_new_one(value: str, run: Run) -> None:
    code, _, error = run("convert", "missing.pth", "--device", value)
    assert code == 2
    assert "convert has no --device: what trains is --train-on" in error
    assert f"--train-on {value}" in error
    assert "--device" not in run("convert", "--help")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--keep", "latent.7"], "no block named 'latent.7'"),
        (["--replace", "latent.0=ssd"], "not among the families tried"),
        (["--replace", "latent.0=mambo"], "unknown surrogate family"),
        (["--arch", "torch.nn:Nothing"], "Nothing"),
        (["--output", "1"], "leave --output out"),
        (["--input", "sigma=1"], "leave --input out"),
        (["--input", "a=1", "--input", "a=2"], "input 'a' is given twice"),
        (["--specialise", "photo.png"], "only networks of a class of yours"),
        (["--weights-key", "ghost"], "no weights under 'ghost'"),
        (["--weights-key", ""], "no weights under ''"),
        (["--max-latency-ms", "5"], "no latency is measured"),
    ],
)
def test_what_the_network_can_tell(
    words: list[str], said: str, tiny_checkpoint: Path, run: Run, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    rest = ["--work-dir", work, "--budget", "smoke", "--size", 32]
    code, _, error = run("convert", tiny_checkpoint, *words, *rest)
    assert (code, said in error) == (2, True), error
    assert not list(work.glob("*"))


@pytest.mark.parametrize(
    ("option", "place"),
    [
        *((option, "/proc/x/y") for option in ("--out", "--work-dir", "--dump-dir")),
        *((option, "file/x") for option in ("--out", "--work-dir", "--dump-dir")),
        # A bundle goes where a link points, and its folder is made there.
        *((option, "dangling/x") for option in ("--work-dir", "--dump-dir")),
    ],
)
def test_places_that_cannot_be_written(
    option: str, place: str, tiny_checkpoint: Path, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    rest = [] if option == "--work-dir" else ["--work-dir", tmp_path / "work"]
    code, _, error = run("convert", tiny_checkpoint, option, tmp_path / place, *rest)
    assert (code, "cannot write" in error) == (11, True), error
    assert not (tmp_path / "work").exists()
