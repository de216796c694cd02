(class_definition name: (identifier) @name) @definition.class
(trait_definition name: (identifier) @name) @definition.trait
(object_definition name: (identifier) @name) @definition.class
(enum_definition name: (identifier) @name) @definition.enum
(simple_enum_case name: (identifier) @name) @definition.member
(full_enum_case name: (identifier) @name) @definition.member
(function_definition name: (_) @name) @definition.function
(function_declaration name: (_) @name) @definition.function
(val_definition pattern: (identifier) @name) @definition.property
(var_definition pattern: (identifier) @name) @definition.property
(val_declaration name: (identifier) @name) @definition.property
(type_definition name: (type_identifier) @name) @definition.type
(given_definition name: (identifier) @name) @definition.variable
(call_expression function: (identifier) @reference)
(call_expression function: (field_expression field: (identifier) @reference))
(instance_expression (type_identifier) @reference)
(import_declaration path: (identifier) @import .)
(import_declaration (namespace_selectors (identifier) @import))
(import_declaration (namespace_selectors (arrow_renamed_identifier alias: (identifier) @import)))
; Scopes, what is bound in them, and imports.
[(function_definition) (block) (lambda_expression) (for_expression) (case_clause)] @local.scope
[(class_definition) (object_definition) (trait_definition)] @local.class
(parameter name: (identifier) @local type: (_)? @local.type)
(class_parameter name: (identifier) @local type: (_)? @local.type)
(val_definition pattern: (_) @local type: (_)? @local.type value: (_)? @local.value)
(var_definition pattern: (_) @local type: (_)? @local.type value: (_)? @local.value)
(enumerator . (_) @local)
(lambda_expression parameters: (identifier) @local)
(binding name: (identifier) @local)
[(import_declaration) (package_clause)] @import.statement
