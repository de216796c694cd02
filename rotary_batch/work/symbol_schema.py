"""What answers on symbols, and what they are told of the code around, add to the tables."""

from __future__ import annotations

from rotary_batch.work.search_schema import entered_answers

# Answers on symbols.  The prompt of a chunk, which the prompts of its symbols begin with, is stored once.  Of a prompt,
# `read_tokens` are those that no item before it reads: so the sums of items are what an engine has to read.  Before,
# the one job that came with the program was the default of every model.
ANSWERS_ON_SYMBOLS = """
create table shared_prompt (id integer primary key, digest text not null unique, token_ids blob not null) strict;
alter table prompt add column shared_id integer references shared_prompt;
create index prompt_by_shared on prompt (shared_id) where shared_id is not null;
create trigger prompt_removed after delete on prompt when old.shared_id is not null begin
  delete from shared_prompt where id = old.shared_id
    and not exists (select 1 from prompt where shared_id = old.shared_id);
end;
alter table item add column read_tokens integer;
alter table item add column at_line_end integer not null default 0;
update item set read_tokens = prompt_tokens;
drop index item_rollups;
create index item_rollups on item (repository_id) where unit not in ('chunk', 'symbol');
drop index item_ready;
create index item_ready on item (repository_id, priority desc, position, id) where state = 'ready';
alter table repository add column job_by_name integer not null default 0;
update repository set job_by_name = job <> 'summarize';
drop trigger item_insert_searched;
drop trigger item_update_searched;
""" + entered_answers(
    "case when unit in ('chunk', 'symbol') then cast(substr(subject, length(path) + 2) as integer) end"
)

# A chunk needs the answers that its context tells.  While one of them is open, its items wait, and its source is a
# draft.  A `label` is what a thing is called in a prompt.  A chunk was planned by the items that it `waits_for`, if
# they are still open; null = it is to be planned.
CONTEXTS = """
alter table item add column label text;
alter table item add column chunk_start integer;
create index item_by_chunk on item (repository_id, path, chunk_start) where chunk_start is not null;
alter table chunk add column waits_for text;
create table draft (
  repository_id integer not null references repository on delete cascade, path text not null,
  start_byte integer not null, text blob not null, primary key (repository_id, path, start_byte)) strict, without rowid;
create table need (
  repository_id integer not null, path text not null, start_byte integer not null,
  item_id integer not null references item on delete cascade,
  primary key (repository_id, path, start_byte, item_id)) strict, without rowid;
create index need_by_item on need (item_id);
create trigger item_needed after update of state on item
when (old.state in ('done', 'parked')) <> (new.state in ('done', 'parked'))
  and exists (select 1 from need where item_id = new.id) begin
  update item set blockers = blockers + case when new.state in ('done', 'parked') then -1 else 1 end
    where id in (select item.id from need cross join item on item.repository_id = need.repository_id
                   and item.path = need.path and item.chunk_start = need.start_byte
                 where need.item_id = new.id and +item.state = 'waiting');
end;
create trigger needed_removed before delete on item
when old.state not in ('done', 'parked') and exists (select 1 from need where item_id = old.id) begin
  update item set blockers = blockers - 1
    where id in (select item.id from need cross join item on item.repository_id = need.repository_id
                   and item.path = need.path and item.chunk_start = need.start_byte
                 where need.item_id = old.id and +item.state = 'waiting');
end;
"""

# A short test that calls a symbol, for the page of the symbol.
EXAMPLES = """
create table example (
  repository_id integer not null references repository on delete cascade, path text not null,
  start_byte integer not null, test_path text not null, test_start_byte integer not null, text text not null,
  primary key (repository_id, path, start_byte)) strict, without rowid;
"""

# Names that may mean something else since the edges were resolved.  Entries of the symbol index, which were found anew
# from all symbols whenever one was listed or not; only an index can fill them.
NAMES_KEPT = """
create table affected_name (
  repository_id integer not null references repository on delete cascade, name text not null,
  primary key (repository_id, name)) strict, without rowid;
create table listed_symbol (
  repository_id integer not null, path text not null, letter text not null, key text not null, name text not null,
  anchor text not null, kind text not null, primary key (repository_id, path, letter, key, name, anchor),
  foreign key (repository_id, path) references file on delete cascade) strict, without rowid;
create index listed_in_order on listed_symbol (repository_id, letter, key, name, path, anchor, kind);
update file set plan_key = null;
update repository set plan_key = '';
"""
