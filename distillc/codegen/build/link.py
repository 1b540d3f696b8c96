"""Objects and sources to what runs: shared libraries and programs, by zig."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

from distillc.errors import LoweringError
from distillc.runtime.native import FLAGS, FOLDER
from distillc.targets.base import Target
from distillc.workdir import write_whole
from distillc.zig import HINT, HOME, run_zig


class Artifact(Enum):
    """What a network is linked to."""

    LIBRARY = "shared library for the target's own C library"
    ANDROID = "shared library for Android, API 29 and up"
    PROGRAM = "program without dependencies, for any Linux kernel"


_LIBC = """
atoi calloc clock_gettime close free lseek malloc memcpy memmove memset mmap munmap open
posix_memalign pthread_attr_destroy pthread_attr_init pthread_attr_setstacksize
pthread_cond_broadcast pthread_cond_destroy pthread_cond_init pthread_cond_wait pthread_create
pthread_join pthread_mutex_destroy pthread_mutex_init pthread_mutex_lock pthread_mutex_unlock
read sched_yield strcpy strlen syscall vsnprintf
"""
_LIBM = """
acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf exp exp2 expm1 fabs floor
fma fmax fmin fmod hypot log log10 log1p log2 nearbyint pow remainder rint round scalbn sin
sincos sinh sqrt tan tanh trunc
"""

BIONIC = {
    "libc.so": tuple(_LIBC.split()),
    "libm.so": tuple(name + kind for name in _LIBM.split() for kind in ("", "f")),
}
"""What a library for Android may call: Android's libraries have it all since API 21 (bionic,
`libc/libc.map.txt`, `libm/libm.map.txt`), of the functions of numbers in double and single
precision. Thread-local variables by TLS descriptors they have since API 29 (`docs/elf-tls.md`)."""

ANDROID_PAGE = 16384
"""Bytes of a memory page that libraries must support from Android 15 on."""


def link(
    path: Path,
    target: Target,
    parts: Sequence[Path],
    native: Sequence[str],
    exports: str,
    form: Artifact = Artifact.LIBRARY,
) -> None:
    """Link what needs only the C library.

    Args:
        path: The library or program.
        target: What it is for.
        parts: Objects and sources.
        native: Sources of `distillc/runtime/native` that it holds, say `("pool", "cores")`.
        exports: Pattern of the symbols that others see of a library, say `"distillc_*"`.
        form: What to link.

    Raises:
        LoweringError: It does not compile or link.
        StorageError: `path` cannot be written.
    """
    sources = [*parts, *(FOLDER / f"{name}.c" for name in native)]
    # Symbols stay, for counts by kernel; with them lines of code do, but no folder of this machine.
    folders = {FOLDER: "distillc", parts[0].parent: "build", HOME: "."}
    flags = [*FLAGS, *(f"-ffile-prefix-map={folder}={name}" for folder, name in folders.items())]

    def zig(*words: object) -> None:
        if reason := run_zig("cc", *flags, *words):
            message = f"linking for {target.name} failed: {reason}"
            raise LoweringError(message, where=str(path), hint=HINT)

    def write(temporary: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="distillc-link-") as name:
            folder = Path(name)
            script = folder / "exports.map"
            script.write_text(f"{{ global: {exports}; local: *; }};\n")
            names = [*_to_linker("--version-script", script), *_to_linker("-soname", path.name)]
            shared = ["-shared", "-fPIC", *names]
            if form is Artifact.PROGRAM:
                zig("-target", target.static, "-static", "-o", temporary, *sources)
            elif form is Artifact.ANDROID:
                linked = _android_parts(zig, target, sources, folder)
                pages = f"-Wl,-z,max-page-size={ANDROID_PAGE}"
                shared += ["-nostdlib", "-Wl,-z,defs", "-Wl,--as-needed", pages]
                zig("-target", target.static, *shared, "-o", temporary, *linked)
            else:
                system = ["-target", target.link] if target.link else []
                zig(*system, *shared, "-o", temporary, *sources)

    write_whole(path, write)


def _to_linker(*words: object) -> list[str]:
    """Return the compiler's words for words of the linker; `-Wl,` would cut them at commas."""
    return [part for word in words for part in ("-Xlinker", str(word))]


def _android_parts(
    zig: Callable[..., None], target: Target, sources: Sequence[Path], folder: Path
) -> list[Path]:
    """Compile sources for bionic with no NDK; return what a library for Android is linked from.

    They are compiled by musl's headers, whose types of threads are as large as bionic's, and linked
    with empty libraries that have the names in `BIONIC`: a call of anything else is an error.
    """
    parts = []
    for library, names in BIONIC.items():
        stub = folder / f"{library}.c"
        stub.write_text("\n".join(f"void {name}(void) {{}}" for name in names))
        plain = ["-shared", "-nostdlib", "-fno-builtin", "-w", *_to_linker("-soname", library)]
        parts.append(folder / library)
        zig("-target", target.static, *plain, stub, "-o", parts[-1])
    for number, source in enumerate(sources):
        if source.suffix == ".o":
            parts.append(source)
        else:
            parts.append(folder / f"{number}.o")
            zig("-target", target.static, "-fPIC", "-c", source, "-o", parts[-1])
    return parts
