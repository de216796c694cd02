; Definitions carry @name; what uses a name is a @reference.
(function_definition name: (identifier) @name) @definition.function
(class_definition name: (identifier) @name) @definition.class
(call function: (identifier) @reference)
(call function: (attribute attribute: (identifier) @reference))
(import_statement name: (dotted_name (identifier) @import))
(import_statement name: (aliased_import alias: (identifier) @import))
(import_from_statement name: (dotted_name (identifier) @import))
(import_from_statement name: (aliased_import alias: (identifier) @import))
