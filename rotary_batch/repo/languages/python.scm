; Definitions carry @name; what uses a name is a @reference.
(function_definition name: (identifier) @name) @definition.function
(class_definition name: (identifier) @name) @definition.class
; python.py walks through the statements of a module or class for what they assign.
(module) @definition.variable
(class_definition body: (block) @definition.field)
(call function: (identifier) @reference)
(call function: (attribute attribute: (identifier) @reference))
(import_statement name: (dotted_name (identifier) @import))
(import_statement name: (aliased_import alias: (identifier) @import))
(import_from_statement name: (dotted_name (identifier) @import))
(import_from_statement name: (aliased_import alias: (identifier) @import))
