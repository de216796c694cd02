(class_declaration name: (identifier) @name) @definition.class
(interface_declaration name: (identifier) @name) @definition.interface
(enum_declaration name: (identifier) @name) @definition.enum
(record_declaration name: (identifier) @name) @definition.record
(annotation_type_declaration name: (identifier) @name) @definition.annotation
(module_declaration name: (_) @name) @definition.module
(method_declaration name: (identifier) @name) @definition.method
(annotation_type_element_declaration name: (identifier) @name) @definition.method
(constructor_declaration name: (identifier) @name) @definition.constructor
(compact_constructor_declaration name: (identifier) @name) @definition.constructor
(enum_constant name: (identifier) @name) @definition.member
; java.py takes the names of one declaration apart.
[(field_declaration) (constant_declaration)] @definition.field
(method_invocation name: (identifier) @reference)
(object_creation_expression type: (type_identifier) @reference)
(import_declaration (scoped_identifier name: (identifier) @import))
; Scopes, what is bound in them, and imports.
[(method_declaration) (constructor_declaration) (lambda_expression) (block) (for_statement) (enhanced_for_statement)
 (try_with_resources_statement) (catch_clause)] @local.scope
[(class_declaration) (interface_declaration) (enum_declaration) (record_declaration)] @local.class
(formal_parameter type: (_) @local.type name: (_) @local)
(spread_parameter (variable_declarator name: (_) @local))
(local_variable_declaration type: (_) @local.type
  declarator: (variable_declarator name: (_) @local value: (_)? @local.value))
(field_declaration type: (_) @local.type declarator: (variable_declarator name: (_) @local))
(enhanced_for_statement type: (_) @local.type name: (_) @local)
(resource type: (_) @local.type name: (_) @local value: (_) @local.value)
(catch_formal_parameter name: (_) @local)
(lambda_expression parameters: (identifier) @local)
(inferred_parameters (identifier) @local)
[(import_declaration) (package_declaration)] @import.statement
