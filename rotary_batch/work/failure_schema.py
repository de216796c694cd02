"""What is to blame for the last failure of an item: a column of the queue and of the view `parked`."""

from __future__ import annotations

# Until now items were parked only for what they were.
FAILURE_CLASSES = """
alter table item add column error_class text;
update item set error_class = 'bad-item' where state = 'parked';
drop view parked;
create view parked as
  select repository_id, repository.name as repository, item.id as item_id, item.job, unit, path, attempts, error,
    error_class
  from item join repository on repository.id = repository_id where state = 'parked';
"""
