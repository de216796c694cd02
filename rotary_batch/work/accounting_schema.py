"""What each item cost: columns of the queue, and sums of them in the view `cost`."""

from __future__ import annotations

# An item's share of the steps that it was in: every live sequence has the same, because one transfer of the weights
# serves them all.  `energy_j` is null where no card counts its energy.
COSTS = """
alter table item add column step_s real not null default 0;
alter table item add column moved_nbytes real not null default 0;
alter table item add column stall_s real not null default 0;
alter table item add column energy_j real;
drop view cost;
create view cost as
  select repository_id, repository.name as repository, item.job, unit, state, count(*) as items,
    sum(reused) as items_reused, sum(prompt_tokens) as prompt_tokens, sum(output_tokens) as output_tokens,
    sum(max_new_tokens) as max_output_tokens, sum(step_s) as step_s, sum(moved_nbytes) as moved_nbytes,
    sum(stall_s) as stall_s, sum(energy_j) as energy_j
  from item join repository on repository.id = repository_id group by repository_id, item.job, unit, state;
"""
