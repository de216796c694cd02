"""What `gc` adds to the tables: when the last item let go of an answer."""

from __future__ import annotations

# Seconds since 1970 when an item was last deleted or asked anew under another key; null = never, or before this
# migration.  An answer that items have is in use, whatever is written here: so nothing is written when one takes it.
_LETS_GO = "update result set unused_since = cast(strftime('%s', 'now') as integer) where key = old.key;"
UNUSED_SINCE = f"""
alter table result add column unused_since integer;
create trigger item_delete_lets_go after delete on item when old.key is not null begin
  {_LETS_GO}
end;
create trigger item_update_lets_go after update of key on item
when old.key is not null and old.key is not new.key begin
  {_LETS_GO}
end;
"""
