"""The tables, as numbered migrations; each runs once, in one transaction with its number."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from rotary_batch.errors import ConfigError, UnavailableError
from rotary_batch.work.accounting_schema import COSTS
from rotary_batch.work.checked_schema import CHECKED
from rotary_batch.work.failure_schema import FAILURE_CLASSES
from rotary_batch.work.sample_schema import SAMPLES
from rotary_batch.work.search_schema import SEARCH_AND_VIEWS
from rotary_batch.work.symbol_schema import ANSWERS_ON_SYMBOLS, CONTEXTS, EXAMPLES, NAMES_KEPT
from rotary_batch.work.topic_schema import TOPICS
from rotary_batch.work.unused_schema import UNUSED_SINCE

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

# Files and their items used to be stored in two transactions; a run killed between left files without items for good.
_M004 = """
alter table file add column rolled_up integer not null default 1;
update file set plan_key = null;
update repository set plan_key = '';
"""

# The time of a step must not depend on the number of items.  So triggers, which run for every statement and cascade,
# count items as they change, and an item has the number of its inputs that are still open.
_M005 = """
alter table item add column blockers integer not null default 0;
update item set blockers =
  (select count(*) from item as child where child.parent_id = item.id and child.state not in ('done', 'parked'));
create table item_count (
  repository_id integer not null references repository on delete cascade, unit text not null, state text not null,
  verdict text not null, n integer not null, primary key (repository_id, unit, state, verdict)) strict, without rowid;
insert into item_count
  select repository_id, unit, state, coalesce(verdict, ''), count(*) from item group by 1, 2, 3, 4;
drop index item_ready;
drop index item_waiting;
create index item_ready on item (repository_id, priority desc, id) where state = 'ready';
create index item_retried on item (repository_id, not_before) where state = 'ready' and not_before is not null;
create index item_unblocked on item (repository_id, id) where state = 'waiting' and blockers = 0;
create trigger item_added after insert on item begin
  insert into item_count values (new.repository_id, new.unit, new.state, coalesce(new.verdict, ''), 1)
    on conflict do update set n = n + 1;
  update item set blockers = blockers + 1 where id = new.parent_id and new.state not in ('done', 'parked');
end;
create trigger item_removed after delete on item begin
  update item_count set n = n - 1 where repository_id = old.repository_id and unit = old.unit
    and state = old.state and verdict = coalesce(old.verdict, '');
  update item set blockers = blockers - 1 where id = old.parent_id and old.state not in ('done', 'parked');
end;
create trigger item_counted after update of repository_id, unit, state, verdict on item
when (old.repository_id, old.unit, old.state, old.verdict) is not (new.repository_id, new.unit, new.state, new.verdict)
begin
  update item_count set n = n - 1 where repository_id = old.repository_id and unit = old.unit
    and state = old.state and verdict = coalesce(old.verdict, '');
  insert into item_count values (new.repository_id, new.unit, new.state, coalesce(new.verdict, ''), 1)
    on conflict do update set n = n + 1;
end;
create trigger item_read after update of state, parent_id on item
when old.parent_id is not new.parent_id or (old.state in ('done', 'parked')) <> (new.state in ('done', 'parked')) begin
  update item set blockers = blockers - 1 where id = old.parent_id and old.state not in ('done', 'parked');
  update item set blockers = blockers + 1 where id = new.parent_id and new.state not in ('done', 'parked');
end;
"""

# The stamp of a page is deleted when something that it shows changes.  An answer is shown on the page of its subject
# and on that of the folder above, which lists it.  Sources, whose names and calls may be on any page, and the settings
# of a repository delete all stamps; other files are counted on the first page only.
_M006 = """
create table page (
  repository_id integer not null references repository on delete cascade, thing text not null, stamp text not null,
  primary key (repository_id, thing)) strict, without rowid;
"""
_SHOWN_ON = """
  case {row}.unit when 'repository' then '/' when 'directory' then {row}.path || '/' else {row}.path end,
  case when {row}.unit in ('file', 'directory')
       then coalesce(nullif(rtrim({row}.path, replace({row}.path, '/', '')), ''), '/') end"""
for _event, _row in (("insert", "new"), ("update of verdict, shown_text", "new"), ("delete", "old")):
    _M006 += f"""
create trigger item_{_event[:6]}_forgets_pages after {_event} on item when {_row}.part_of is null begin
  delete from page where repository_id = {_row}.repository_id and thing in ({_SHOWN_ON.format(row=_row)});
end;"""
for _event, _row, _when in (
    ("insert", "new", "true"),
    (
        "update of blob, class, reason, docstring, fallback, plan_key",
        "new",
        """(old.class, old.reason, old.docstring, old.fallback, old.plan_key)
             is not (new.class, new.reason, new.docstring, new.fallback, new.plan_key)
           or (new.class = 'source' and old.blob <> new.blob)""",
    ),
    ("delete", "old", "true"),
):
    _source = "'source' in (old.class, new.class)" if _event[:6] == "update" else f"{_row}.class = 'source'"
    _M006 += f"""
create trigger file_{_event[:6]}_forgets_pages after {_event} on file when {_when} begin
  delete from page where repository_id = {_row}.repository_id and ({_source} or thing = '/');
end;"""
_M006 += """
create trigger repository_update_forgets_pages
after update of name, docs_dir, model_name, pack_dir, link_template on repository
when (old.name, old.docs_dir, old.model_name, old.pack_dir, old.link_template)
  is not (new.name, new.docs_dir, new.model_name, new.pack_dir, new.link_template) begin
  delete from page where repository_id = new.id;
end;
"""

# Resolved calls, in the order of the references.  Only an index can fill the table, so the next one plans again.
_M007 = """
create table call (
  id integer primary key, repository_id integer not null references repository on delete cascade,
  path text not null, start_byte integer not null, callee_path text not null,
  callee_start_byte integer not null) strict;
create index call_by_caller on call (repository_id, path);
create index call_by_callee on call (repository_id, callee_path);
update file set rolled_up = 0;
update repository set plan_key = '';
"""

# Base types, decorators and visibility of symbols; imports, the files that they are about, what is known of types, and
# what extends what.  Only an index can fill them.
_M008 = """
alter table symbol add column bases text not null default '[]';
alter table symbol add column decorators text not null default '[]';
alter table symbol add column is_public integer not null default 1;
create index symbol_by_name on symbol (repository_id, name);
create table import (
  repository_id integer not null, path text not null, position integer not null, module text not null, name text,
  alias text not null, primary key (repository_id, path, position),
  foreign key (repository_id, path) references file on delete cascade) strict, without rowid;
create table import_target (
  repository_id integer not null, path text not null, target text not null, primary key (repository_id, path, target),
  foreign key (repository_id, path) references file on delete cascade) strict, without rowid;
create table value_type (
  repository_id integer not null, path text not null, owner text not null, name text not null, value text not null,
  primary key (repository_id, path, owner, name),
  foreign key (repository_id, path) references file on delete cascade) strict, without rowid;
create table inheritance (
  repository_id integer not null, path text not null, start_byte integer not null, base_path text not null,
  base_start_byte integer not null, primary key (repository_id, path, start_byte, base_path, base_start_byte),
  foreign key (repository_id, path) references file on delete cascade) strict, without rowid;
create index inheritance_by_base on inheritance (repository_id, base_path, base_start_byte);
drop index call_by_caller;
drop index call_by_callee;
create index call_by_caller on call (repository_id, path, start_byte);
create index call_by_callee on call (repository_id, callee_path, callee_start_byte);
delete from reference;
update file set plan_key = null, rolled_up = 0;
update repository set plan_key = '';
"""

# What a README says is shown on the page of its folder, where that folder is listed, and on pages about everything.
_FOLDER = "rtrim({path}, replace({path}, '/', ''))"
_ABOVE = _FOLDER.format(path="rtrim({path}, '/')")
_M009 = ""
for _event, _row, _when in (
    ("update of docstring", "new", "old.docstring is not new.docstring and new.class <> 'source'"),
    ("delete", "old", "old.docstring is not null and old.class <> 'source'"),
):
    _folder = _FOLDER.format(path=f"{_row}.path")
    _M009 += f"""
create trigger text_{_event[:6]}_forgets_pages after {_event} on file when {_when} begin
  delete from page where repository_id = {_row}.repository_id
    and (thing glob '/*' or thing in ({_folder}, {_ABOVE.format(path=_folder)}));
end;"""

# Documented declarations, which definitions without a comment look for.
_M011 = """
create index symbol_declared on symbol (repository_id, qualified_name)
  where kind = 'declaration' and docstring is not null;
"""

# A changed source deletes the stamps of its own page and of what lists all files; one that comes or goes, also those of
# the navigation and the symbol index.  `page_stamps` deletes those of the other pages that show something of it.
# The callers of a symbol are read by path.
_M012 = """
drop index call_by_callee;
create index call_by_callee on call (repository_id, callee_path, callee_start_byte, path);
"""
for _event, _row, _when, _things in (
    ("insert", "new", "true", "new.class = 'source' and thing glob '/*'"),
    (
        "update of blob, class, reason, docstring, fallback, plan_key",
        "new",
        """(old.class, old.reason, old.docstring, old.fallback, old.plan_key)
             is not (new.class, new.reason, new.docstring, new.fallback, new.plan_key)
           or (new.class = 'source' and old.blob <> new.blob)""",
        """case when old.class = 'source' and new.class = 'source'
             then thing in (new.path, '/llms.txt', '/llms-full.txt')
             else 'source' in (old.class, new.class) and (thing = new.path or thing glob '/*') end""",
    ),
    ("delete", "old", "true", "old.class = 'source' and (thing = old.path or thing glob '/*')"),
):
    _M012 += f"""
drop trigger file_{_event[:6]}_forgets_pages;
create trigger file_{_event[:6]}_forgets_pages after {_event} on file when {_when} begin
  delete from page where repository_id = {_row}.repository_id and (thing = '/' or {_things});
end;"""

# Whether the model is the demonstration: pages say so, and are written when its pack is gone.  The digest of each page
# that this database wrote: a page with another one was written by a person or from another database.
_M013 = """
alter table repository add column demonstration integer not null default 0;
update repository set demonstration = 1 where model_name = 'rotary-demo';
create table written_page (
  repository_id integer not null references repository on delete cascade, thing text not null, digest text not null,
  primary key (repository_id, thing)) strict, without rowid;
"""

# The version of the program that resolved all edges; null when they are to be resolved again.
# A changed source deletes the stamp of llms.txt only when summaries may say something else; see `index.py`.
_M014 = """
alter table repository add column resolved_by text;
drop trigger file_update_forgets_pages;
create trigger file_update_forgets_pages after update of blob, class, reason, docstring, fallback, plan_key on file
when (old.class, old.reason, old.docstring, old.fallback, old.plan_key)
       is not (new.class, new.reason, new.docstring, new.fallback, new.plan_key)
     or (new.class = 'source' and old.blob <> new.blob) begin
  delete from page where repository_id = new.repository_id and (thing = '/' or
    case when old.class = 'source' and new.class = 'source' then thing in (new.path, '/llms-full.txt')
         else 'source' in (old.class, new.class) and (thing = new.path or thing glob '/*') end);
end;
"""

# Why a run ended, when it last said what it did, and its report: JSON that `commands.run_report` describes.
_M015 = """
alter table run add column reason text;
alter table run add column saved_at text;
alter table run add column report text;
"""

# What the prompts of roll-ups have room for, and how long the note on a chunk is by its structure: they tell how many
# will get parts.  Only an index can fill them.
_M016 = """
create table note_room (
  repository_id integer not null references repository on delete cascade, unit text not null,
  frame_tokens integer not null, notes_tokens integer not null, primary key (repository_id, unit)) strict,
  without rowid;
alter table item add column note_chars integer;
create index item_rollups on item (repository_id) where unit <> 'chunk';
update repository set plan_key = '';
"""
# Which model a repository was indexed with: its digest (null = an earlier version did not store it), and whether it was
# named by --model, which no setting overrides later.  Earlier versions did not know that; what was no demonstration had
# been named.
_M017 = """
alter table repository add column model_digest text;
alter table repository add column model_by_flag integer not null default 1;
update repository set model_by_flag = 0 where demonstration;
"""

MIGRATIONS = (
    _M001,
    _M002,
    _M003,
    _M004,
    _M005,
    _M006,
    _M007,
    _M008,
    _M009,
    SEARCH_AND_VIEWS,
    _M011,
    _M012,
    _M013,
    _M014,
    _M015,
    _M016,
    _M017,
    CHECKED,
    ANSWERS_ON_SYMBOLS,
    CONTEXTS,
    SAMPLES,
    COSTS,
    EXAMPLES,
    NAMES_KEPT,
    UNUSED_SINCE,
    FAILURE_CLASSES,
    TOPICS,
)


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements; a trigger has semicolons inside."""
    statement = ""
    for part in script.split(";")[:-1]:
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def require_current(connection: sqlite3.Connection) -> None:
    """For readers, which must not migrate.  Raises ConfigError for a database of another version of the program."""
    version = connection.execute("pragma user_version").fetchone()[0]
    if version != len(MIGRATIONS):
        advice = "run `rotary-batch index REPO` once" if version < len(MIGRATIONS) else "upgrade rotary-batch"
        raise ConfigError(f"the database has schema {version}, this program knows {len(MIGRATIONS)}; {advice}")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables up to date.  Raises ConfigError for a database of a newer program."""
    version = connection.execute("pragma user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        known = len(MIGRATIONS)
        raise ConfigError(f"the database has schema {version}, this program knows {known}; upgrade rotary-batch")
    if version < len(MIGRATIONS):
        _apply(connection, version)


def _apply(connection: sqlite3.Connection, version: int) -> None:
    _require_fts5(connection)
    if version == 0:  # nothing to change: one transaction waits for the disk once, 0.04 s in all instead of 0.3 s
        _run_scripts(connection, MIGRATIONS, len(MIGRATIONS))
    else:
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            _run_scripts(connection, [script], number)


def _run_scripts(connection: sqlite3.Connection, scripts: Sequence[str], version: int) -> None:
    """In one transaction."""
    connection.execute("begin immediate")
    try:
        for statement in (each for script in scripts for each in _statements(script)):
            connection.execute(statement)
        connection.execute(f"pragma user_version = {version}")
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def has_fts5(connection: sqlite3.Connection) -> bool:
    """Whether this SQLite has full-text search."""
    return connection.execute("select 1 from pragma_module_list where name = 'fts5'").fetchone() is not None


def _require_fts5(connection: sqlite3.Connection) -> None:
    if not has_fts5(connection):
        raise UnavailableError(
            f"SQLite {sqlite3.sqlite_version} of this Python has no full-text search (FTS5), which the database needs; "
            f"use a Python whose SQLite has it, as those of python.org and of Linux distributions do"
        )
