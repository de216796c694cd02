"""The migration that adds full-text search, and views for people who ask in SQL."""

from __future__ import annotations

# Full-text search.  An entry is a symbol, a file, a folder or an answer; `search` is the index of its texts, found by
# Datasette because of `content="..."`.  A trigger removes entries that are gone.  Whoever inserts an entry
# inserts both rows: a trigger takes 38 us instead of 14, as FTS5 flushes at the savepoint of each row.  `words` holds
# what the tokenizer does not see: the words within camelCase, and snake_case as one word.  Only an index can split
# identifiers, so the next one reads all files again.
_SEARCH = """
create table search_entry (
  id integer primary key, repository_id integer not null references repository on delete cascade, path text not null,
  start_byte integer, kind text not null, name text, qualified_name text not null,
  item_id integer references item on delete cascade, words text not null, prose text not null) strict;
create index search_entry_by_path on search_entry (repository_id, path);
create index search_entry_by_item on search_entry (item_id) where item_id is not null;
create virtual table search using fts5 (
  qualified_name, words, prose, content="search_entry", content_rowid = 'id',
  tokenize = 'unicode61 remove_diacritics 2');
create trigger search_entry_removed after delete on search_entry begin
  insert into search (search, rowid, qualified_name, words, prose)
    values ('delete', old.id, old.qualified_name, old.words, old.prose);
end;
create trigger file_delete_forgets_search after delete on file begin
  delete from search_entry where repository_id = old.repository_id and path = old.path and item_id is null;
end;
"""
_START_OF_CHUNK = "case unit when 'chunk' then cast(substr(subject, length(path) + 2) as integer) end"
_ENTER_ITEMS = """
  insert into search_entry (repository_id, path, start_byte, kind, qualified_name, item_id, words, prose)
    select repository_id, path,
           {start}, unit,
           case unit when 'directory' then path else '' end, id, '', coalesce(shown_text, '')
    from item where part_of is null and (shown_text is not null or unit = 'directory') and {which};
  insert into search (rowid, qualified_name, words, prose)
    select id, qualified_name, words, prose from search_entry where {which_entries};"""


def entered_answers(start: str) -> str:
    """The triggers that enter answers; `start` is the start byte of an item."""
    enter_item = _ENTER_ITEMS.format(start=start, which="id = new.id", which_entries="item_id = new.id")
    return f"""
create trigger item_insert_searched after insert on item
when new.shown_text is not null or new.unit = 'directory' begin {enter_item}
end;
create trigger item_update_searched after update of shown_text on item when old.shown_text is not new.shown_text begin
  delete from search_entry where item_id = new.id; {enter_item}
end;
"""


_SEARCH += _ENTER_ITEMS.format(start=_START_OF_CHUNK, which="true", which_entries="true")
_SEARCH += entered_answers(_START_OF_CHUNK)
_SEARCH += """
update file set plan_key = null, rolled_up = 0;
update repository set plan_key = '';
"""

# Views for people and for Datasette.  `repository` is a name, which two repositories may share; the id is unique.
_VIEWS = """
create view coverage as
  select repository_id, repository.name as repository, path, language, class, nbytes,
    (select count(*) from symbol where symbol.repository_id = file.repository_id and symbol.path = file.path)
      as symbols,
    (select count(docstring) from symbol where symbol.repository_id = file.repository_id and symbol.path = file.path)
      as documented_symbols,
    (select count(*) from item where item.repository_id = file.repository_id and item.path = file.path) as items,
    (select count(*) from item where item.repository_id = file.repository_id and item.path = file.path
       and verdict = 'shown') as items_shown
  from file join repository on repository.id = repository_id;
create view stale as
  select repository_id, repository.name as repository, thing, reason from (
    select repository_id, path as thing, 'its page is not up to date on disk' as reason from file
      where class = 'source'
    union all select repository_id, path || '/', 'its page is not up to date on disk' from item
      where unit in ('directory', 'repository') and part_of is null
  ) as wanted join repository on repository.id = repository_id
  where not exists (select 1 from page where page.repository_id = wanted.repository_id and page.thing = wanted.thing);
create view parked as
  select repository_id, repository.name as repository, item.id as item_id, item.job, unit, path, attempts, error
  from item join repository on repository.id = repository_id where state = 'parked';
create view cost as
  select repository_id, repository.name as repository, item.job, unit, state, count(*) as items,
    sum(reused) as items_reused, sum(prompt_tokens) as prompt_tokens, sum(output_tokens) as output_tokens,
    sum(max_new_tokens) as max_output_tokens
  from item join repository on repository.id = repository_id group by repository_id, item.job, unit, state;
create view graph as
  select call.id as call_id, call.repository_id, repository.name as repository, call.path as caller_path,
    caller.qualified_name as caller, caller.start_line as caller_line, call.callee_path,
    callee.qualified_name as callee, callee.start_line as callee_line
  from call join repository on repository.id = call.repository_id
  join symbol as caller on caller.repository_id = call.repository_id and caller.path = call.path
    and caller.start_byte = call.start_byte
  join symbol as callee on callee.repository_id = call.repository_id and callee.path = call.callee_path
    and callee.start_byte = call.callee_start_byte;
create table run_repository (
  repository_id integer not null references repository on delete cascade,
  run_id integer not null references run on delete cascade, primary key (repository_id, run_id)) strict, without rowid;
create index run_repository_by_run on run_repository (run_id);
"""

SEARCH_AND_VIEWS = _SEARCH + _VIEWS
