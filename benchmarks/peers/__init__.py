"""The parts of ``benchmarks/compare.py``: one worker process a library, fed with the same cases."""
