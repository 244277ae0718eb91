"""Ledger of an output: an append-only log in which each line is hash-chained to the lines before it.

::

    {"run": 1, "plan": digest of plan.json, ...}                     a run began
    {"schema": 0, "arrow": base64}                                   columns and types, by number
    {"chunk": 0, "ranges": [...], "pieces": [...], "errors": [...]}  a chunk is done; its rows are in pieces
    {"part": "part-00000.parquet", "chunks": [[0, 25], ...], ...}    its rows are, or are about to be, in a part
    {"void": [0]}                                                    not done after all: the rows are gone
    {"together": [...]}                                              parts and chunks that change at one stroke
    {"end": true, "errors": digest of errors.pq}                     everything is done

100 or more errors are stored by column: `{"count": 4000, "bytes": of the JSON, "zstd": base64}`.
A later line for the same chunk or part takes the place of the earlier one. A part is written down
once it is whole under its temporary name, and gets its final name afterwards: whatever dies between
the two, the next run does the renaming. Of a line that was half written when the machine stopped
nothing is taken; a line that was changed is found, since no later one goes with it.
"""
