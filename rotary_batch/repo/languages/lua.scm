(function_declaration name: (_) @name) @definition.function
(assignment_statement (variable_list . name: (_) @name) (expression_list . value: (function_definition))) @definition.function
(assignment_statement (variable_list . name: (dot_index_expression) @name)
  (expression_list . value: [(number) (string) (true) (false) (table_constructor)])) @definition.variable
(field name: (identifier) @name value: (function_definition)) @definition.function
(function_call name: (identifier) @reference)
(function_call name: (dot_index_expression field: (identifier) @reference))
(function_call name: (method_index_expression method: (identifier) @reference))
