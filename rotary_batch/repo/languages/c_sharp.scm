(namespace_declaration name: (_) @name) @definition.namespace
(class_declaration name: (identifier) @name) @definition.class
(struct_declaration name: (identifier) @name) @definition.struct
(record_declaration name: (identifier) @name) @definition.record
(interface_declaration name: (identifier) @name) @definition.interface
(enum_declaration name: (identifier) @name) @definition.enum
(enum_member_declaration name: (identifier) @name) @definition.member
(delegate_declaration name: (identifier) @name) @definition.type
(method_declaration name: (identifier) @name) @definition.method
(local_function_statement name: (identifier) @name) @definition.function
(constructor_declaration name: (identifier) @name) @definition.constructor
(operator_declaration) @definition.method
(indexer_declaration "this" @name) @definition.property
(property_declaration name: (identifier) @name) @definition.property
(event_declaration name: (identifier) @name) @definition.property
(field_declaration (variable_declaration (variable_declarator name: (identifier) @name) @definition.field))
(event_field_declaration (variable_declaration (variable_declarator name: (identifier) @name) @definition.field))
(invocation_expression function: (identifier) @reference)
(invocation_expression function: (member_access_expression name: (identifier) @reference))
(object_creation_expression type: (identifier) @reference)
(using_directive (identifier) @import)
(using_directive (qualified_name name: (identifier) @import))
; Scopes, and what is bound in them.
[(method_declaration) (constructor_declaration) (local_function_statement) (lambda_expression) (block) (for_statement)
 (foreach_statement) (using_statement) (catch_clause)] @local.scope
[(class_declaration) (struct_declaration) (interface_declaration) (record_declaration)] @local.class
(parameter type: (_)? @local.type name: (identifier) @local)
(implicit_parameter) @local
(variable_declaration type: (_) @local.type (variable_declarator name: (identifier) @local))
(variable_declaration type: (_) @local.type
  (variable_declarator name: (identifier) @local (object_creation_expression) @local.value))
(foreach_statement type: (_) @local.type left: (identifier) @local)
(property_declaration type: (_) @local.type name: (identifier) @local)
[(using_directive) (file_scoped_namespace_declaration)] @import.statement
