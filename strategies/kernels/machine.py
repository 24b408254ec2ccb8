"""From LLVM's intermediate language to functions that work on NumPy's buffers.

Why LLVM itself and not a compiler of Python loops above it: the kernels are few and small, and written in explicit
vectors their speed does not hang on what a vectoriser thinks of a loop. Importing LLVM takes 40 ms and most kernels
10 to 20 ms to compile, once a process, so nothing has to be cached on disk.

Every kernel gives the same bits on every machine: no fast-math flag is set, LLVM fuses nothing unasked, and `fma` where
a kernel asks for it is the exactly rounded one (a call of the C library where the processor has none).
"""

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

Kernel = Callable[..., None]
"""A compiled kernel: takes addresses and numbers, runs without the GIL."""

_lock = threading.Lock()
_kernels: dict[str, Kernel] = {}


@cache
def _features() -> str:
    """What the processor can do, as LLVM writes it."""
    import llvmlite.binding as llvm

    try:
        return str(llvm.get_host_cpu_features().flatten())
    except RuntimeError:  # LLVM cannot tell on this kind of machine; the processor's name says enough
        return ""


@cache
def lanes() -> int:
    """How many coordinates a kernel takes at once: what keeps the registers busy. The results do not depend on it."""
    return 16 if "+avx512f" in _features() else 8


@cache
def _engine() -> Any:
    """This process's compiler, for the processor that it runs on."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=_features(), opt=2)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def compiled(module: Any) -> Kernel:
    """Compile an `ir.Module` that defines one function, named like the module; callable from any thread.

    The function returns nothing and takes 64-bit integers, doubles and pointers (to be given as integer addresses). Of
    modules with the same name only the first is compiled.
    """
    import llvmlite.binding as llvm
    from llvmlite import ir

    name = module.name
    with _lock:
        if name not in _kernels:
            engine = _engine()
            engine.add_module(llvm.parse_assembly(str(module)))
            engine.finalize_object()
            arguments = module.get_global(name).args
            kinds = [ctypes.c_double if isinstance(a.type, ir.DoubleType) else ctypes.c_int64 for a in arguments]
            _kernels[name] = ctypes.CFUNCTYPE(None, *kinds)(engine.get_function_address(name))
        return _kernels[name]
