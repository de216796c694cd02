"""What checking answers and sources adds to the tables."""

from __future__ import annotations

# How many sentences of an answer were looked at, how many of them are shown, and why others are not (JSON).  By which
# rules and threshold the verdicts of a repository were given; with others, its answers are `unchecked` until they are
# planned again.  Secrets that no prompt holds.
CHECKED = """
alter table item add column num_sentences integer not null default 0;
alter table item add column num_kept integer not null default 0;
alter table item add column reasons text not null default '[]';
alter table item add column unchecked integer not null default 0;
alter table repository add column check_key text;
create table secret (
  repository_id integer not null, path text not null, line integer not null, kind text not null,
  primary key (repository_id, path, line, kind),
  foreign key (repository_id, path) references file on delete cascade) strict, without rowid;
"""
