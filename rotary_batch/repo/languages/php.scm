(namespace_definition name: (namespace_name) @name body: (_)) @definition.namespace
(class_declaration name: (name) @name) @definition.class
(interface_declaration name: (name) @name) @definition.interface
(trait_declaration name: (name) @name) @definition.trait
(enum_declaration name: (name) @name) @definition.enum
(enum_case name: (name) @name) @definition.member
(method_declaration name: (name) @name) @definition.method
(function_definition name: (name) @name) @definition.function
(const_element (name) @name) @definition.constant
(property_element name: (variable_name) @name) @definition.field
(property_promotion_parameter name: (variable_name) @name) @definition.field
(function_call_expression function: (name) @reference)
(function_call_expression function: [(qualified_name (name) @reference .) (relative_name (name) @reference .)])
(member_call_expression name: (name) @reference)
(nullsafe_member_call_expression name: (name) @reference)
(scoped_call_expression name: (name) @reference)
(object_creation_expression (name) @reference)
(object_creation_expression [(qualified_name (name) @reference .) (relative_name (name) @reference .)])
[(namespace_definition) (namespace_use_declaration) (require_expression) (require_once_expression)
 (include_expression) (include_once_expression)] @import.statement
(namespace_use_clause (qualified_name (name) @import .))
(namespace_use_clause (name) @import)
