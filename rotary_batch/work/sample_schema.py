"""The table of samples: what a run had done at moments of it."""

from __future__ import annotations

# Every column but `at_s` is a total since the run began, so a sample can be left out and none of the others changes.
SAMPLES = """
create table run_sample (
  run_id integer not null references run on delete cascade, at_s real not null, prompt_tokens integer not null,
  generated_tokens integer not null, step_s real not null, bound_s real not null, moved_nbytes real not null,
  read_nbytes real not null, stall_s real not null, ended integer not null, num_open integer not null,
  sentences integer not null, sentences_shown integer not null, primary key (run_id, at_s)) strict, without rowid;
"""
