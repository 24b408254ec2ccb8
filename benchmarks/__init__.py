"""Every speed and memory claim of the project, measured: `python -m benchmarks`.

A benchmark is a module with `measure(quick: bool) -> list[benchmarks.table.Table]`, listed in `benchmarks.__main__`.
"""
