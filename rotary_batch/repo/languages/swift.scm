(class_declaration name: (type_identifier) @name) @definition.class
(class_declaration "extension" name: (user_type) @name) @scope
(protocol_declaration name: (type_identifier) @name) @definition.interface
(enum_entry name: (simple_identifier) @name @definition.member)
(function_declaration name: (simple_identifier) @name) @definition.function
(protocol_function_declaration name: (simple_identifier) @name) @definition.method
(init_declaration "init" @name) @definition.constructor
(subscript_declaration "subscript" @name) @definition.property
(property_declaration name: (pattern bound_identifier: (simple_identifier) @name)) @definition.property
(protocol_property_declaration name: (pattern bound_identifier: (simple_identifier) @name)) @definition.property
(typealias_declaration name: (type_identifier) @name) @definition.type
(call_expression . (simple_identifier) @reference)
(call_expression . (navigation_expression suffix: (navigation_suffix suffix: (simple_identifier) @reference)))
(import_declaration (identifier (simple_identifier) @import .))
; Scopes, and what is bound in them.
[(function_declaration) (init_declaration) (lambda_literal) (statements) (for_statement) (if_statement)
 (guard_statement)] @local.scope
(class_declaration) @local.class
(parameter name: (simple_identifier) @local)
(lambda_parameter name: (simple_identifier) @local)
(property_declaration name: (pattern bound_identifier: (simple_identifier) @local)
  (type_annotation)? @local.type value: (_)? @local.value)
(for_statement item: (pattern bound_identifier: (simple_identifier) @local))
(import_declaration) @import.statement
