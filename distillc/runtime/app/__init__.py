"""What a bundle brings for apps: an example in C, a CMake project, a Kotlin class and its JNI."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
FILES = ("restore.c", "CMakeLists.txt", "Model.kt", "distillc_jni.c")
