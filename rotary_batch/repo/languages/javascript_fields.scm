; Comes after javascript.scm; TypeScript has declarations of its own for these.
(field_definition) @definition.field
(class_body (method_definition
  name: (property_identifier) @constructor
  body: (statement_block (expression_statement
    (assignment_expression left: (member_expression object: (this))) @definition.field)))
  (#eq? @constructor "constructor"))
