"""What the page for people who are new to a repository adds to the tables."""

from __future__ import annotations

# What files say of building, testing and entering the project, and the files that others use most, directly or not.
# Only an index can fill both, so the next one reads all files again.  A changed source also deletes the stamp of that
# page.
TOPICS = """
create table fact (
  repository_id integer not null, path text not null, position integer not null, kind text not null,
  name text not null, code text not null, words text not null, primary key (repository_id, path, position),
  foreign key (repository_id, path) references file on delete cascade) strict, without rowid;
create table central_file (
  repository_id integer not null, position integer not null, path text not null,
  primary key (repository_id, position),
  foreign key (repository_id, path) references file on delete cascade) strict, without rowid;
create index central_file_by_path on central_file (repository_id, path);
"""
for _event, _row in (("insert", "new"), ("delete", "old")):
    TOPICS += f"""
create trigger fact_{_event}_forgets_page after {_event} on fact begin
  delete from page where repository_id = {_row}.repository_id and thing = '/onboarding.md';
end;"""
TOPICS += """
drop trigger file_update_forgets_pages;
create trigger file_update_forgets_pages after update of blob, class, reason, docstring, fallback, plan_key on file
when (old.class, old.reason, old.docstring, old.fallback, old.plan_key)
       is not (new.class, new.reason, new.docstring, new.fallback, new.plan_key)
     or (new.class = 'source' and old.blob <> new.blob) begin
  delete from page where repository_id = new.repository_id and (thing in ('/', '/onboarding.md') or
    case when old.class = 'source' and new.class = 'source' then thing in (new.path, '/llms-full.txt')
         else 'source' in (old.class, new.class) and (thing = new.path or thing glob '/*') end);
end;
update file set plan_key = null;
update repository set plan_key = '';
"""
