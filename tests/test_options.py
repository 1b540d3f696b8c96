"""Options: one object, which the API's arguments and the command line's options agree with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest

from distillc import as_is, conversion
from distillc.budgets import get_budget
from distillc.cli.convert import convert as command
from distillc.data.tasks import parse_task
from distillc.errors import UsageError
from distillc.limits import Limits
from distillc.options import BundleOptions, ConversionOptions
from distillc.targets.base import get_target

PUBLIC = [
    (conversion.convert, "distillc.conversion.run_conversion", ConversionOptions),
    (as_is.convert_as_is, "distillc.as_is.run_as_is", BundleOptions),
]
OTHERS: dict[str, Any] = {
    "target": "host",
    "size": (32, 64),
    "task": "derain",
    "out": "o.distillc",
    "budget": "smoke",
    "precision": "fp16",
    "weights_beside": True,
    "onnx_scans": "standard",
    "overwrite": True,
    "work_dir": "w",
    "tune_minutes": 3.0,
    "sandbox": False,
    "progress": None,
    "data": "d",
    "families": ("conv", "ssd"),
    "objective": "latency",
    "limits": Limits(max_drop=0.5),
    "measure_on": "adb",
    "seed": 7,
    "train_on": "cpu",
    "cluster": "local:2",
    "dump_dir": Path("dumps"),
    "print_after": "trace",
    "stop_after": "heal",
    "verify_each": True,
    "arch": "a:B",
    "arch_args": {"c": 1},
    "output": "stages.0",
    "inputs": {"sigma": 0.1},
    "weights_key": "ema",
    "specialise": "photo.png",
    "trust_pickle": True,
}


def default(field: Field[Any]) -> Any:
    assert field.default is not MISSING
    return field.default


@pytest.mark.parametrize(("function", "runs", "options"), PUBLIC)
def test_arguments_are_the_fields(
    function: Callable[..., Any], runs: str, options: type[BundleOptions]
) -> None:
    _, *parameters = inspect.signature(function).parameters.values()
    arguments = {each.name: (each.annotation, each.default) for each in parameters}
    assert arguments == {each.name: (each.type, default(each)) for each in fields(options)}
    positional = [each.name for each in parameters if each.kind is not each.KEYWORD_ONLY]
    assert positional == ["target", "size", "task", "out", "budget"]


@pytest.mark.parametrize(("function", "runs", "options"), PUBLIC)
def test_every_argument_arrives_in_its_field(
    function: Callable[..., Any],
    runs: str,
    options: type[BundleOptions],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {each.name: OTHERS[each.name] for each in fields(options)}
    seen: list[tuple[str, BundleOptions]] = []
    monkeypatch.setattr(runs, lambda *arguments: seen.append(arguments))
    function("x.pth", **given)
    assert seen == [("x.pth", options(**given))]
    assert {name: getattr(seen[0][1], name) for name in given} == given


def test_the_command_has_an_option_for_every_field() -> None:
    given = command.make_context("convert", ["x.pth"]).params
    ours = {each.name: default(each) for each in fields(ConversionOptions)}
    del ours["limits"], ours["progress"]
    ours["no_sandbox"] = not ours.pop("sandbox")
    ours |= {"inputs": ()}
    ours |= {"keep": (), "replace": (), "families": (), "work_dir": Path(ours["work_dir"])}
    ours |= {each.name: None for each in fields(Limits) if each.name not in ours}
    assert given == {**ours, "no_distill": False, "checkpoint": Path("x.pth"), "as_json": False}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"target": "snapdragon9"}, "snapdragon8elite"),
        ({"task": "dehaze"}, "denoise"),
        ({"budget": "huge"}, "smoke, quick, full"),
        ({"precision": "fp64"}, "known precisions"),
        ({"size": (0, 8)}, "out of range"),
        ({"tune_minutes": -1}, "out of range"),
        ({"families": ["scan9"]}, "known families"),
        ({"limits": Limits(replace={"a": "skip"})}, "not among the families tried"),
        ({"limits": Limits(max_latency_ms=5), "budget": "smoke"}, "no latency is measured"),
        ({"measure_on": "emulator"}, "mean nothing"),
        ({"measure_on": "phone"}, "unknown device"),
        ({"seed": -1}, "out of range"),
        ({"train_on": "tpu"}, "no device that trains"),
        ({"cluster": "local:none"}, "unknown cluster"),
    ],
    ids=str,
)
def test_wrong_values_make_no_options(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        ConversionOptions(**wrong)
    assert said in str(caught.value)


def test_what_options_say_of_themselves(tmp_path: Path) -> None:
    options = BundleOptions(target="host", task="derain", budget="smoke", work_dir=tmp_path)
    assert options.chosen_target == get_target("host")
    assert options.chosen_task == parse_task("derain")
    assert options.effort == get_budget("smoke")
    assert options.bundle_folder("models/net.onnx") == Path("net.distillc")
    assert options.folders == (tmp_path,)
    assert BundleOptions(out="x").bundle_folder("net.onnx") == Path("x")


def test_families_and_objective_replace_the_budgets() -> None:
    own = get_budget("smoke")
    assert ConversionOptions(budget="smoke").effort == own
    limits = Limits(replace={"a": "mamba:state=1@block"})
    options = ConversionOptions(
        budget=own, families=["mamba"], objective="transformers", limits=limits, dump_dir=Path("d")
    )
    assert options.effort.families == ("mamba",)
    assert options.effort.objective == "transformers"
    assert options.effort.trials == own.trials
    assert options.tried_limits.replace == {"a": "mamba"}
    assert options.folders == (Path(".distillc-work"), Path("d"))
