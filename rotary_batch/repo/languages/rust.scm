[(function_item name: (identifier) @name) (function_signature_item name: (identifier) @name)] @definition.function
(struct_item name: (type_identifier) @name) @definition.struct
(enum_item name: (type_identifier) @name) @definition.enum
(union_item name: (type_identifier) @name) @definition.union
(trait_item name: (type_identifier) @name) @definition.trait
(type_item name: (type_identifier) @name) @definition.type
(associated_type name: (type_identifier) @name) @definition.type
(mod_item name: (identifier) @name body: (_)) @definition.module
(macro_definition name: (identifier) @name) @definition.macro
(field_declaration name: (field_identifier) @name) @definition.field
(enum_variant name: (identifier) @name) @definition.member
(const_item name: (identifier) @name) @definition.constant
(static_item name: (identifier) @name) @definition.variable
(impl_item) @scope
(call_expression function: (identifier) @reference)
(call_expression function: (scoped_identifier name: (identifier) @reference))
(call_expression function: (field_expression field: (field_identifier) @reference))
(macro_invocation macro: (identifier) @reference)
(struct_expression name: (type_identifier) @reference)
; Scopes, what is bound in them, and imports.
[(function_item) (closure_expression) (block) (match_arm) (for_expression) (if_expression)
 (while_expression)] @local.scope
(struct_item) @local.class
(parameter pattern: (_) @local type: (_) @local.type)
(closure_parameters [(identifier) (tuple_pattern) (reference_pattern) (mut_pattern)] @local)
(let_declaration pattern: (_) @local type: (_)? @local.type value: (_)? @local.value)
(for_expression pattern: (_) @local)
(let_condition pattern: (_) @local)
(match_arm pattern: (_) @local)
(field_declaration name: (_) @local type: (_) @local.type)
[(use_declaration) (mod_item)] @import.statement
