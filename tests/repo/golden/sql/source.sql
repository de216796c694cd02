-- Baskets.

-- People who shop.
CREATE TABLE IF NOT EXISTS shop.person (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL
);

CREATE VIEW adult AS SELECT * FROM person;
CREATE INDEX person_name ON person (name);
-- Adds.
CREATE FUNCTION add(a int, b int) RETURNS int AS $$ SELECT a + b $$ LANGUAGE sql;
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TRIGGER counted AFTER INSERT ON person FOR EACH ROW EXECUTE FUNCTION add();
