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
; Scopes, what is bound in them, and imports.
[(function_definition) (lambda) (list_comprehension) (set_comprehension) (dictionary_comprehension)
 (generator_expression)] @local.scope
(class_definition) @local.class
(parameters [(identifier) (default_parameter) (list_splat_pattern) (dictionary_splat_pattern) (tuple_pattern)] @local)
(parameters (typed_parameter . (_) @local type: (_) @local.type))
(parameters (typed_default_parameter name: (_) @local type: (_) @local.type))
(lambda_parameters (_) @local)
(assignment left: (_) @local type: (_)? @local.type right: (_)? @local.value)
(for_statement left: (_) @local)
(for_in_clause left: (_) @local)
(as_pattern_target (_) @local)
(with_item value: (as_pattern (_) @local.entered alias: (as_pattern_target (_) @local)))
(named_expression name: (_) @local value: (_) @local.value)
(case_pattern (_) @local)
(global_statement (identifier) @local.free)
(nonlocal_statement (identifier) @local.free)
[(import_statement) (import_from_statement)] @import.statement
