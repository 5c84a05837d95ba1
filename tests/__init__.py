"""The tests. They mirror the sources; beside those, `contract`, `replay` and `interop`."""
