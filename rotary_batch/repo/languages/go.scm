(function_declaration name: (identifier) @name) @definition.function
(method_declaration
  receiver: (parameter_list (parameter_declaration type: [
    (type_identifier) @receiver
    (pointer_type (type_identifier) @receiver)
    (generic_type type: (type_identifier) @receiver)
    (pointer_type (generic_type type: (type_identifier) @receiver))]))
  name: (field_identifier) @name) @definition.method
; go.py adds the fields, methods and embedded types of a type, and takes declarations of several names apart.
(type_spec name: (type_identifier) @name) @definition.type
(type_alias name: (type_identifier) @name) @definition.type
(source_file (const_declaration) @definition.constant)
(source_file (var_declaration) @definition.variable)
(call_expression function: (identifier) @reference)
(call_expression function: (selector_expression field: (field_identifier) @reference))
(composite_literal type: (type_identifier) @reference)
; Scopes, what is bound in them, and imports.
[(function_declaration) (method_declaration) (func_literal) (block) (if_statement) (for_statement)
 (expression_switch_statement) (type_switch_statement) (communication_case) (expression_case) (type_case)
 (default_case)] @local.scope
[(struct_type) (interface_type)] @local.class
(parameter_declaration name: (_) @local type: (_) @local.type)
(variadic_parameter_declaration name: (_) @local)
(short_var_declaration left: (_) @local right: (_) @local.value)
(var_spec name: (_) @local type: (_)? @local.type value: (_)? @local.value)
(const_spec name: (_) @local)
(range_clause left: (_) @local)
(receive_statement left: (_) @local)
(type_switch_statement alias: (_) @local)
(field_declaration name: (_) @local type: (_) @local.type)
[(import_spec) (package_clause)] @import.statement
