; Comes after c.scm.
(class_specifier name: (type_identifier) @name body: (_)) @definition.class
(namespace_definition name: (namespace_identifier) @name) @definition.namespace
(function_definition declarator: (function_declarator declarator: (field_identifier) @name)) @definition.method
(function_definition declarator: (function_declarator declarator: (destructor_name) @name)) @definition.method
(function_definition declarator: (function_declarator declarator: (qualified_identifier) @name)) @definition.function
(function_definition
  declarator: (pointer_declarator declarator: (function_declarator declarator: (qualified_identifier) @name))) @definition.function
(function_definition
  declarator: (reference_declarator (function_declarator declarator: (qualified_identifier) @name))) @definition.function
(field_declaration declarator: (function_declarator declarator: (field_identifier) @name)) @definition.declaration
(call_expression function: (qualified_identifier name: (identifier) @reference))
(new_expression type: (type_identifier) @reference)
; Scopes, what is bound in them, and `using`.
[(lambda_expression) (for_range_loop) (catch_clause) (if_statement)] @local.scope
(class_specifier) @local.class
(optional_parameter_declaration type: (_) @local.type declarator: (_) @local)
(for_range_loop type: (_) @local.type declarator: (_) @local)
(using_declaration) @import.statement
