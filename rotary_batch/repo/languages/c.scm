; Also the first half of C++'s query.
(function_definition declarator: (function_declarator declarator: (identifier) @name)) @definition.function
(function_definition
  declarator: (pointer_declarator declarator: (function_declarator declarator: (identifier) @name))) @definition.function
(declaration declarator: (function_declarator declarator: (identifier) @name)) @definition.declaration
(declaration
  declarator: (pointer_declarator declarator: (function_declarator declarator: (identifier) @name))) @definition.declaration
(struct_specifier name: (type_identifier) @name body: (_)) @definition.struct
(union_specifier name: (type_identifier) @name body: (_)) @definition.union
(enum_specifier name: (type_identifier) @name body: (_)) @definition.enum
(type_definition declarator: (type_identifier) @name) @definition.type
(preproc_function_def name: (identifier) @name) @definition.macro
(call_expression function: (identifier) @reference)
(call_expression function: (field_expression field: (field_identifier) @reference))
; Scopes, what is bound in them, and includes.
[(function_definition) (compound_statement) (for_statement)] @local.scope
[(struct_specifier) (union_specifier)] @local.class
(parameter_declaration type: (_) @local.type declarator: (_) @local)
(declaration type: (_) @local.type declarator: (_) @local)
(declaration type: (_) @local.type declarator: (init_declarator declarator: (_) @local value: (_) @local.value))
(field_declaration type: (_) @local.type declarator: (_) @local)
(preproc_include) @import.statement
