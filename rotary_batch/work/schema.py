"""The tables, as numbered migrations; each runs once, in one transaction with its number.

Knows SQL; knows nothing of what the rows mean to the rest.
"""

from __future__ import annotations

import sqlite3

from rotary_batch.errors import ConfigError

_M001 = """
create table repository (
  id integer primary key, root text not null unique, name text not null, commit_id text, worktree integer not null,
  docs_dir text not null, model_name text not null, pack_dir text not null, plan_key text not null, link_template text,
  job text not null, notes text not null default '[]') strict;
create table file (
  repository_id integer not null references repository on delete cascade, path text not null, blob text not null,
  nbytes integer not null, language text, class text not null, reason text not null, docstring text, fallback text,
  plan_key text, primary key (repository_id, path)) strict, without rowid;
create table symbol (
  repository_id integer not null, path text not null, start_byte integer not null, end_byte integer not null,
  start_line integer not null, end_line integer not null, kind text not null, name text not null,
  qualified_name text not null, signature text not null, docstring text,
  primary key (repository_id, path, start_byte, qualified_name),
  foreign key (repository_id, path) references file on delete cascade) strict, without rowid;
create table reference (
  id integer primary key, repository_id integer not null, path text not null, name text not null,
  line integer not null, start_byte integer not null, caller_start_byte integer,
  foreign key (repository_id, path) references file on delete cascade) strict;
create index reference_by_file on reference (repository_id, path);
create table chunk (
  repository_id integer not null, path text not null, start_byte integer not null, end_byte integer not null,
  start_line integer not null, end_line integer not null, blob text not null, tokens integer not null,
  symbols text not null, breadcrumb text not null, primary key (repository_id, path, start_byte),
  foreign key (repository_id, path) references file on delete cascade) strict, without rowid;
create table run (
  id integer primary key, started_at text not null, ended_at text, pid integer not null, command text not null,
  model_name text, outcome text, tally text not null default '{}') strict;
create table item (
  id integer primary key, repository_id integer not null references repository on delete cascade,
  job text not null, unit text not null, subject text not null, path text not null, position integer not null,
  parent_id integer references item on delete set null, part_of integer references item on delete cascade,
  state text not null check (state in ('waiting', 'ready', 'leased', 'done', 'parked')), key text,
  priority integer not null, attempts integer not null default 0, epoch integer not null default 0,
  run_id integer, not_before real, max_new_tokens integer not null, prompt_tokens integer, output_tokens integer,
  num_markers integer not null default 0, error text, verdict text, shown_text text, reused integer not null default 0,
  unique (repository_id, job, unit, subject)) strict;
create index item_ready on item (priority desc, id) where state = 'ready';
create index item_waiting on item (id) where state = 'waiting';
create index item_leased on item (run_id) where state = 'leased';
create index item_children on item (parent_id);
create index item_parts on item (part_of) where part_of is not null;
create index item_by_path on item (repository_id, path);
create table prompt (item_id integer primary key references item on delete cascade, token_ids blob not null) strict;
create table partial (
  item_id integer not null references item on delete cascade, position integer not null, token_ids blob not null,
  logprob_sum real not null, primary key (item_id, position)) strict, without rowid;
create table result (
  key text primary key, token_ids blob not null, text text not null, logprob_sum real not null,
  num_scored integer not null, reason text not null, provenance text not null) strict;
"""

_M002 = """
alter table item add column max_sentences integer;
alter table item add column ended text;
"""

_M003 = """
alter table reference add column receiver text;
delete from reference;
update file set plan_key = null;
update repository set plan_key = '';
"""

# Files and their items were stored apart: a run that was killed between left files without items, for good.
_M004 = """
alter table file add column rolled_up integer not null default 1;
update file set plan_key = null;
update repository set plan_key = '';
"""

MIGRATIONS = (_M001, _M002, _M003, _M004)


def require_current(connection: sqlite3.Connection) -> None:
    """For readers, who change nothing.  Raises ConfigError for a database of another version of the program."""
    version = connection.execute("pragma user_version").fetchone()[0]
    if version != len(MIGRATIONS):
        advice = "run `rotary-batch index REPO` once" if version < len(MIGRATIONS) else "upgrade rotary-batch"
        raise ConfigError(f"the database has schema {version}, this program knows {len(MIGRATIONS)}; {advice}")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables up to date.  Raises ConfigError for a database of a newer program."""
    from sqlite_utils import Database  # here, because it imports numpy: 0.2 s that `status` and `--help` do not have

    db = Database(connection)
    version = db.execute("pragma user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        known = len(MIGRATIONS)
        raise ConfigError(f"the database has schema {version}, this program knows {known}; upgrade rotary-batch")
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        with db.atomic():
            for statement in filter(str.strip, script.split(";")):
                db.execute(statement)
            db.execute(f"pragma user_version = {number}")
