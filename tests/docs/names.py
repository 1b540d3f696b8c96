"""Which names of a passage do not exist: paths, commands, options, symbols, variables, targets."""

from __future__ import annotations

import ast
import keyword
import os
import pkgutil
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click

from distillc.cli import cli
from tests.docs.passages import ROOT, Passage, is_said

_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_VARIABLE = re.compile(r"\bDISTILLC_[A-Z_]+\b")
_PATH = re.compile(
    r"[\w.*<>-]+(?:/[\w.*<>-]+)+/?|[\w-]+/|[\w-]+\.(?:py|md|c|h|kt|toml|yml|jsonl|txt)"
)
_BARE_PATH = re.compile(r"(?<![\w/.(])(?:docs|tests|distillc|passes|targets)/[\w/.-]*\w")
_REFERENCE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)  # of mkdocstrings
_SYMBOL = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(\))?")
_PRODUCT = ("distillc/", "passes/", "targets/")
_OURS = ("distillc", "passes", "targets", "tests", "examples")
_SOURCES = (".c", ".h", ".kt", ".txt", ".html", ".toml", ".yml")
_MADE = ("build", "results", "__pycache__")  # by commands, so not in the repository

_FILES_OF_OTHERS = {
    *("mynet/models.py", "file.py", "input/", "target/", "src/main/jniLibs/arm64-v8a"),  # users
    *("libc/libc.map.txt", "libm/libm.map.txt", "docs/elf-tls.md"),  # bionic
    "00_trace.txt",  # dumps
}
_FOREIGN = {
    *("AT_FDCWD", "RENAME_EXCHANGE", "e_machine", "pixi"),  # Linux, ELF, AVIF
    *("fmla", "vrndscaleps"),  # instructions
    *("save_json", "set_instrument", "T.Bind"),  # TVM
    "externalNativeBuild",  # Android's Gradle
}
"""Names of others, which none of our code has."""


def unknown(passage: Passage) -> Iterator[str]:
    """Yield what a passage names and what does not exist, as `kind name`."""
    yield from (f"variable {v}" for v in _VARIABLE.findall(passage.text) if v not in words())
    known = options() if passage.place.startswith(_PRODUCT) else options() | options_of_scripts()
    if passage.code:
        for line in passage.text.replace("\\\n", " ").splitlines():
            yield from _of_command(line, known)
        return
    yield from _of_links(passage)
    yield from (
        f"symbol {each}" for each in _REFERENCE.findall(passage.text) if not _resolves(each)
    )
    for span in _SPAN.findall(passage.text):
        yield from _of_span(" ".join(span.split()), known)
    outside = _SPAN.sub(" ", passage.text)
    yield from (f"path {each}" for each in _BARE_PATH.findall(outside) if not _is_path(each))
    yield from (f"option {each}" for each in _OPTION.findall(outside) if each not in known)


def _of_links(passage: Passage) -> Iterator[str]:
    for link in _LINK.findall(passage.text):
        path = link.split("#")[0]
        here = (ROOT / passage.place.split(":")[0]).parent
        if path and "://" not in link and not (here / path).exists():
            yield f"link {link}"


def _of_span(span: str, known: set[str]) -> Iterator[str]:
    if " " in span or span.startswith("-"):
        yield from _of_command(span, known)
    elif _PATH.fullmatch(span.split(":")[0]):
        if not _is_path(span.split(":")[0]):
            yield f"path {span}"
    elif _SYMBOL.fullmatch(span) and not _is_symbol(span.removesuffix("()")):
        yield f"symbol {span}"


def _of_command(line: str, known: set[str]) -> Iterator[str]:
    """Check a line of a shell: what it starts, and the options that it gives to that."""
    try:
        words_ = shlex.split(line, comments=True)
    except ValueError:  # prose, or Python
        return
    while words_ and re.fullmatch(r"[A-Z_]+=.*", words_[0]):
        words_.pop(0)
    given = [word.split("=")[0] for word in words_ if _OPTION.match(word)]
    match words_:
        case ["make", target, *_] if re.fullmatch(r"[a-z-]+", target):
            if f"\n{target}:" not in (ROOT / "Makefile").read_text():
                yield f"target make {target}"
        case ["python", "-m", module, *_] if module.startswith("tests."):
            place = ROOT / module.replace(".", "/")
            path = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
            if not path.exists():
                yield f"module {module}"
            else:
                taken = options_of_script(path)
                yield from (f"option {module} {each}" for each in given if each not in taken)
        case ["distillc", *rest]:
            name = next((word for word in rest if re.fullmatch(r"[a-z][a-z-]*", word)), None)
            if name is not None and name not in cli.commands:
                yield f"command distillc {name}"
            elif name is not None:
                known = _options_of(cli) | _options_of(cli.commands[name])
            yield from (f"option distillc {name} {each}" for each in given if each not in known)
        case [first, *_] if first.startswith("--"):
            yield from (f"option {each}" for each in given if each not in known)


def _options_of(command: click.Command) -> set[str]:
    context = click.Context(command, **command.context_settings)
    return {name for each in command.get_params(context) for name in each.opts}


@cache
def options() -> set[str]:
    """Return every option of every command, and those of the programs that bundles bring."""
    found = {name for each in (cli, *cli.commands.values()) for name in _options_of(each)}
    native = (ROOT / "distillc/runtime/native").glob("*.c")
    return found.union(*(_OPTION.findall(_without_comments(path.read_text())) for path in native))


@cache
def options_of_script(path: Path) -> set[str]:
    """Return the options of a script of the tests, and of what it imports from its neighbours."""
    source = path.read_text()
    found = set(re.findall(r'"(--[a-z][a-z-]*)"', source))
    for module in re.findall(r"^from tests\.([\w.]+) import", source, re.MULTILINE):
        beside = ROOT / "tests" / f"{module.replace('.', '/')}.py"
        if beside.exists() and beside != path:
            found |= options_of_script(beside)
    return found


@cache
def options_of_scripts() -> set[str]:
    """Return the options of all scripts of the tests."""
    paths = (ROOT / "tests").rglob("*.py")
    return set().union(*(re.findall(r'"(--[a-z][a-z-]*)"', each.read_text()) for each in paths))


@cache
def files() -> list[str]:
    """Return every file and folder of the project, folders with a slash at the end."""
    found = []
    for folder, inside, names in os.walk(ROOT):
        made = _MADE if Path(folder) == ROOT else ("__pycache__",)
        inside[:] = [
            each for each in inside if each not in made and (each[0] != "." or each == ".ci")
        ]
        here = f"{folder.removeprefix(str(ROOT))}/"
        found += [here + name for name in names] + [f"{here}{each}/" for each in inside]
    return found


def _is_path(name: str) -> bool:
    if name.split("/")[0] in _MADE or name in _FILES_OF_OTHERS | words():
        return True
    pattern = re.escape(name.rstrip("/")).replace(r"\*", "[^/]*")
    return any(re.search(rf"/{pattern}/?$", each) for each in files())


def _is_symbol(name: str) -> bool:
    first, *rest = name.split(".")
    if first in _OURS and rest:
        return _resolves(name if first in ("distillc", "tests") else f"distillc.{name}")
    if name in _FOREIGN or keyword.iskeyword(name):
        return True
    if rest and first in classes():
        return rest[0] in members(first)
    return all(each in words() for each in (first, *rest))


def _resolves(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return name in words()  # names of attributes of the compiler, such as distillc.scheduled
    return True


@cache
def words() -> set[str]:
    """Return every name that code uses: not comments, docstrings, nor what users read."""
    found: set[str] = set()
    for name in files():
        path = ROOT / name[1:]
        if path.suffix == ".py" and not name.startswith("/tests/docs/"):
            found |= set(_names(ast.parse(path.read_text())))
        elif path.suffix in _SOURCES:
            found |= set(re.findall(r"\w+", _without_comments(path.read_text())))
    return found


def _without_comments(source: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", source, flags=re.DOTALL)


def _names(node: ast.AST) -> Iterator[str]:
    if is_said(node):
        return
    for value in (getattr(node, each, None) for each in ("id", "attr", "arg", "name", "asname")):
        if isinstance(value, str):
            yield from value.split(".")
    if isinstance(node, ast.ImportFrom) and node.module:
        yield from node.module.split(".")
    text = node.value if isinstance(node, ast.Constant) else None
    if isinstance(text, str) and re.fullmatch(r"[\w.:/-]+", text):
        yield text
        yield from re.findall(r"\w+", text)
    for child in ast.iter_child_nodes(node):
        yield from _names(child)


@cache
def classes() -> dict[str, list[ast.ClassDef]]:
    """Return the project's classes by name."""
    found: dict[str, list[ast.ClassDef]] = {}
    for name in files():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse((ROOT / name[1:]).read_text())):
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name, []).append(node)
    return found


def members(name: str) -> set[str]:
    """Return what classes of a name define, and their bases of the project."""
    found: set[str] = set()
    for each in classes().get(name, []):
        for node in ast.walk(each):
            if isinstance(node, ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.id if isinstance(node, ast.Name) else node.attr)
        for base in each.bases:
            inherited = ast.unparse(base).split("[")[0].split(".")[-1]
            found |= members(inherited) if inherited != name else set()
    return found
