"""The benchmark's tables: rows, what validation chose for them, cells, curves."""
