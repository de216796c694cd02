(function_declaration name: (_) @name) @definition.function
(assignment_statement (variable_list . name: (_) @name) (expression_list . value: (function_definition))) @definition.function
(assignment_statement (variable_list . name: (dot_index_expression) @name)
  (expression_list . value: [(number) (string) (true) (false) (table_constructor)])) @definition.variable
(field name: (identifier) @name value: (function_definition)) @definition.function
(function_call name: (identifier) @reference)
(function_call name: (dot_index_expression field: (identifier) @reference))
(function_call name: (method_index_expression method: (identifier) @reference))
; Scopes, and what is bound in them.
[(function_declaration) (function_definition) (block) (for_statement)] @local.scope
(parameters name: (identifier) @local)
(variable_declaration (assignment_statement (variable_list name: (identifier) @local)))
(variable_declaration (variable_list name: (identifier) @local))
(for_generic_clause (variable_list name: (identifier) @local))
(for_numeric_clause name: (identifier) @local)
(variable_declaration (assignment_statement)) @import.statement
(chunk (function_call name: (identifier) @_require) @import.statement (#eq? @_require "require"))
(chunk (return_statement) @import.statement)
