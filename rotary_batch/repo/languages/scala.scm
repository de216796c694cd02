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
