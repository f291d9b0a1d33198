"""Shared memory of a node: atomics, payload arena, and the board on which agents find tasks and leave answers.

Start reading at `board`; `layout` says what lies where. Importing this package loads nothing: Numba is costly.
"""
