"""A fuzzer of the real command: inputs of many kinds, each run to its end in a process with limits, and what must be true of each."""
