pragma application_id = 1919906914;
pragma user_version = 3;
BEGIN TRANSACTION;
CREATE TABLE chunk (
  repository_id integer not null, path text not null, start_byte integer not null, end_byte integer not null,
  start_line integer not null, end_line integer not null, blob text not null, tokens integer not null,
  symbols text not null, breadcrumb text not null, primary key (repository_id, path, start_byte),
  foreign key (repository_id, path) references file on delete cascade) strict, without rowid;
INSERT INTO "chunk" VALUES(1,'a.py',0,9,1,2,'b1',4,'["f"]','');
CREATE TABLE file (
  repository_id integer not null references repository on delete cascade, path text not null, blob text not null,
  nbytes integer not null, language text, class text not null, reason text not null, docstring text, fallback text,
  plan_key text, primary key (repository_id, path)) strict, without rowid;
INSERT INTO "file" VALUES(1,'a.py','b1',9,'python','source','python','Mod.',NULL,'k');
CREATE TABLE item (
  id integer primary key, repository_id integer not null references repository on delete cascade,
  job text not null, unit text not null, subject text not null, path text not null, position integer not null,
  parent_id integer references item on delete set null, part_of integer references item on delete cascade,
  state text not null check (state in ('waiting', 'ready', 'leased', 'done', 'parked')), key text,
  priority integer not null, attempts integer not null default 0, epoch integer not null default 0,
  run_id integer, not_before real, max_new_tokens integer not null, prompt_tokens integer, output_tokens integer,
  num_markers integer not null default 0, error text, verdict text, shown_text text, reused integer not null default 0, max_sentences integer, ended text,
  unique (repository_id, job, unit, subject)) strict;
INSERT INTO "item" VALUES(1,1,'summarize','repository','','',0,NULL,NULL,'waiting',NULL,0,0,0,NULL,NULL,8,NULL,NULL,0,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "item" VALUES(2,1,'summarize','directory','d','d',0,1,NULL,'waiting',NULL,0,0,0,NULL,NULL,8,NULL,NULL,0,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "item" VALUES(3,1,'summarize','file','a.py','a.py',0,2,NULL,'waiting',NULL,9,0,0,NULL,NULL,8,NULL,NULL,0,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "item" VALUES(4,1,'summarize','file','b.py','b.py',0,2,NULL,'waiting',NULL,9,0,0,NULL,NULL,8,NULL,NULL,0,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "item" VALUES(5,1,'summarize','chunk','a.py@0-1','a.py',0,13,NULL,'done','key0',0,0,1,NULL,NULL,8,3,2,0,NULL,'shown','It works.',0,NULL,'stop');
INSERT INTO "item" VALUES(6,1,'summarize','chunk','a.py@1-2','a.py',1,13,NULL,'done','key1',0,0,1,NULL,NULL,8,3,2,0,NULL,'shown','It works.',0,NULL,'stop');
INSERT INTO "item" VALUES(7,1,'summarize','chunk','a.py@2-3','a.py',2,14,NULL,'done','key2',0,0,1,NULL,NULL,8,3,2,0,NULL,'shown','It works.',0,NULL,'stop');
INSERT INTO "item" VALUES(8,1,'summarize','chunk','a.py@3-4','a.py',3,14,NULL,'parked','key3',0,1,1,NULL,NULL,8,3,NULL,0,'engine gave up',NULL,NULL,0,NULL,NULL);
INSERT INTO "item" VALUES(9,1,'summarize','chunk','b.py@5-6','b.py',5,4,NULL,'leased','key5',0,0,1,1,NULL,8,3,NULL,0,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "item" VALUES(10,1,'summarize','chunk','b.py@6-7','b.py',6,4,NULL,'ready','key6',0,1,1,NULL,50.0,8,3,NULL,0,'busy',NULL,NULL,0,NULL,NULL);
INSERT INTO "item" VALUES(11,2,'summarize','chunk','a.py@9-10','a.py',9,NULL,NULL,'ready','key9',0,0,0,NULL,NULL,8,3,NULL,0,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "item" VALUES(12,2,'summarize','chunk','a.py@8-9','a.py',8,NULL,NULL,'parked',NULL,0,0,0,NULL,NULL,8,NULL,NULL,0,'too long',NULL,NULL,0,NULL,NULL);
INSERT INTO "item" VALUES(13,1,'summarize','file','a.py#1','a.py',0,3,3,'waiting',NULL,9,0,0,NULL,NULL,8,NULL,NULL,0,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "item" VALUES(14,1,'summarize','file','a.py#2','a.py',1,3,3,'waiting',NULL,9,0,0,NULL,NULL,8,NULL,NULL,0,NULL,NULL,NULL,0,NULL,NULL);
CREATE TABLE partial (
  item_id integer not null references item on delete cascade, position integer not null, token_ids blob not null,
  logprob_sum real not null, primary key (item_id, position)) strict, without rowid;
INSERT INTO "partial" VALUES(9,0,X'0300000004000000',-0.5);
CREATE TABLE prompt (item_id integer primary key references item on delete cascade, token_ids blob not null) strict;
INSERT INTO "prompt" VALUES(8,X'010000000200000003000000');
INSERT INTO "prompt" VALUES(9,X'010000000200000005000000');
INSERT INTO "prompt" VALUES(10,X'010000000200000006000000');
INSERT INTO "prompt" VALUES(11,X'010000000200000009000000');
CREATE TABLE reference (
  id integer primary key, repository_id integer not null, path text not null, name text not null,
  line integer not null, start_byte integer not null, caller_start_byte integer, receiver text,
  foreign key (repository_id, path) references file on delete cascade) strict;
INSERT INTO "reference" VALUES(1,1,'a.py','g',1,3,0,NULL);
CREATE TABLE repository (
  id integer primary key, root text not null unique, name text not null, commit_id text, worktree integer not null,
  docs_dir text not null, model_name text not null, pack_dir text not null, plan_key text not null, link_template text,
  job text not null, notes text not null default '[]') strict;
INSERT INTO "repository" VALUES(1,'/r','r',NULL,0,'rotary-docs','m','/p','k',NULL,'summarize','[]');
INSERT INTO "repository" VALUES(2,'/other','r',NULL,0,'rotary-docs','m','/p','k',NULL,'summarize','[]');
CREATE TABLE result (
  key text primary key, token_ids blob not null, text text not null, logprob_sum real not null,
  num_scored integer not null, reason text not null, provenance text not null) strict;
INSERT INTO "result" VALUES('key0',X'0700000008000000','It works.',-0.5,2,'stop','{}');
INSERT INTO "result" VALUES('key1',X'0700000008000000','It works.',-0.5,2,'stop','{}');
INSERT INTO "result" VALUES('key2',X'0700000008000000','It works.',-0.5,2,'stop','{}');
CREATE TABLE run (
  id integer primary key, started_at text not null, ended_at text, pid integer not null, command text not null,
  model_name text, outcome text, tally text not null default '{}') strict;
INSERT INTO "run" VALUES(1,'2026-11-27T10:31:20+00:00',NULL,7,'drain','m',NULL,'{"done": 3}');
CREATE TABLE symbol (
  repository_id integer not null, path text not null, start_byte integer not null, end_byte integer not null,
  start_line integer not null, end_line integer not null, kind text not null, name text not null,
  qualified_name text not null, signature text not null, docstring text,
  primary key (repository_id, path, start_byte, qualified_name),
  foreign key (repository_id, path) references file on delete cascade) strict, without rowid;
INSERT INTO "symbol" VALUES(1,'a.py',0,9,1,2,'function','f','f','def f()','D; with a semicolon.');
CREATE INDEX reference_by_file on reference (repository_id, path);
CREATE INDEX item_ready on item (priority desc, id) where state = 'ready';
CREATE INDEX item_waiting on item (id) where state = 'waiting';
CREATE INDEX item_leased on item (run_id) where state = 'leased';
CREATE INDEX item_children on item (parent_id);
CREATE INDEX item_parts on item (part_of) where part_of is not null;
CREATE INDEX item_by_path on item (repository_id, path);
COMMIT;
