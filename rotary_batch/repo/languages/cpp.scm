; Comes after c.scm.
(template_declaration (declaration) @definition.variable)
(class_specifier body: (_)) @definition.class
(namespace_definition name: (_) @name) @definition.namespace
(alias_declaration name: (type_identifier) @name) @definition.type
(concept_definition name: (identifier) @name) @definition.type
(call_expression function: (qualified_identifier name: (identifier) @reference))
(new_expression type: (type_identifier) @reference)
; Scopes, what is bound in them, and `using`.
[(lambda_expression) (for_range_loop) (catch_clause) (if_statement)] @local.scope
(class_specifier) @local.class
(optional_parameter_declaration type: (_) @local.type declarator: (_) @local)
(for_range_loop type: (_) @local.type declarator: (_) @local)
(using_declaration) @import.statement
