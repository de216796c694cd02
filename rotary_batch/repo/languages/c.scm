; Also the first half of C++'s query.  c_declarations.py says what these nodes declare.
(function_definition) @definition.function
(translation_unit (declaration) @definition.variable)
(linkage_specification (declaration) @definition.variable)
(declaration_list (declaration) @definition.variable)
; `type (*name)(int);` and `type (name)(int);` are calls to the grammar.
(translation_unit (expression_statement (call_expression function: (call_expression arguments: (argument_list . (pointer_expression argument: (identifier) @name) .)))) @definition.variable)
(translation_unit (expression_statement (assignment_expression left: (call_expression function: (call_expression arguments: (argument_list . (pointer_expression argument: (identifier) @name) .))))) @definition.variable)
(translation_unit (expression_statement (call_expression function: (call_expression arguments: (argument_list . (identifier) @name .)))) @definition.declaration)
(declaration_list (expression_statement (call_expression function: (call_expression arguments: (argument_list . (pointer_expression argument: (identifier) @name) .)))) @definition.variable)
(declaration_list (expression_statement (assignment_expression left: (call_expression function: (call_expression arguments: (argument_list . (pointer_expression argument: (identifier) @name) .))))) @definition.variable)
(declaration_list (expression_statement (call_expression function: (call_expression arguments: (argument_list . (identifier) @name .)))) @definition.declaration)
(struct_specifier body: (_)) @definition.struct
(union_specifier body: (_)) @definition.union
(enum_specifier body: (_)) @definition.enum
(type_definition) @definition.type
(preproc_def name: (identifier) @name) @definition.macro
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
